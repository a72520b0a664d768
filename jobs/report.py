"""Write a page of results and draw pictures, from the files of a run or of predictions (see --help)."""

try:
    from brats.cli import run_job
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is missing; run `make install`, then `source .venv/bin/activate`") from None
from brats.config import ReportConfig


def main(config: ReportConfig) -> None:
    from brats.pipeline.report import page_of, report

    for path in [*report(config), page_of(config)]:
        print(path)


if __name__ == "__main__":
    run_job(main, ReportConfig)
