"""Segment cases with a trained model, and score them where there are references (see --help)."""

try:
    from brats.cli import run_job
except ModuleNotFoundError as error:
    raise SystemExit(
        f"predict.py: {error.name} is not installed; run `make install`, then `source .venv/bin/activate`"
    ) from None
from brats.config import PredictConfig


def main(config: PredictConfig) -> None:
    from brats import storage
    from brats.cluster.connect import NETWORK_MODULES, connected
    from brats.cluster.preflight import check_cluster
    from brats.cluster.quiet import native_log_hidden
    from brats.pipeline.predict import predict

    inputs = {"--data": config.data, "--model": config.model}
    storage.check_roundtrip(storage.absolute(config.out))
    with native_log_hidden(), connected(NETWORK_MODULES, wait_minutes=config.wait_minutes):
        check_cluster(inputs, config.out, wait_minutes=config.wait_minutes)
        print(predict(config).summary())


if __name__ == "__main__":
    run_job(main, PredictConfig)
