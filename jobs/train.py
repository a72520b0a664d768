"""Train a U-Net on BraTS cases, then predict and score the test split (see --help)."""

try:
    from brats.cli import run_job
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is missing; run `make install`, then `source .venv/bin/activate`") from None
from brats.config import TrainConfig


def main(config: TrainConfig) -> None:
    from brats.cluster.connect import NETWORK_MODULES
    from brats.cluster.session import ready
    from brats.pipeline.loggers.log import check_loggers
    from brats.pipeline.several.side_by_side import train_run

    check_loggers(config)
    with ready({"--data": config.data}, config.out, config.wait_minutes, NETWORK_MODULES):
        print(train_run(config).summary())


if __name__ == "__main__":
    run_job(main, TrainConfig)
