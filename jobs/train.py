"""Train a U-Net on BraTS cases, then predict and score the test split (see --help)."""

try:
    from brats.cli import run_job
except ModuleNotFoundError as error:
    raise SystemExit(
        f"train.py: {error.name} is not installed; run `make install`, then `source .venv/bin/activate`"
    ) from None
from brats.config import TrainConfig, resolve_train


def main(config: TrainConfig) -> None:
    from brats import storage
    from brats.cluster.connect import NETWORK_MODULES, connected
    from brats.cluster.preflight import check_cluster
    from brats.cluster.quiet import native_log_hidden
    from brats.pipeline.train import train

    config = resolve_train(config)
    assert config.out is not None
    storage.check_roundtrip(storage.absolute(config.out))
    with native_log_hidden(), connected(NETWORK_MODULES, wait_minutes=config.wait_minutes):
        check_cluster({"--data": config.data}, config.out, wait_minutes=config.wait_minutes)
        print(train(config).summary())


if __name__ == "__main__":
    run_job(main, TrainConfig)
