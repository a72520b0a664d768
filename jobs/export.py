"""Write a model or masks in the form in which other programs and people take them (see --help)."""

try:
    from brats.cli import run_job
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is missing; run `make install`, then `source .venv/bin/activate`") from None
from brats.config import ExportConfig


def main(config: ExportConfig) -> None:
    from brats.pipeline.export import export

    for line in export(config):
        print(line)


if __name__ == "__main__":
    run_job(main, ExportConfig)
