"""Train presets on the same cases and compare them on the test split (see --help)."""

try:
    from brats.cli import run_job
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is missing; run `make install`, then `source .venv/bin/activate`") from None
from brats.config import CompareConfig


def main(config: CompareConfig) -> None:
    from brats.cluster.connect import NETWORK_MODULES
    from brats.cluster.session import ready
    from brats.pipeline.loggers.log import check_loggers
    from brats.pipeline.several.compare import compare

    check_loggers(config)
    with ready({"--data": config.data}, config.out, config.wait_minutes, NETWORK_MODULES):
        comparison = compare(config)
        print(comparison.summary())
    comparison.check()


if __name__ == "__main__":
    run_job(main, CompareConfig)
