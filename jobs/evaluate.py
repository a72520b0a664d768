"""Score masks in NIfTI, made by any program, against the references of BraTS cases (see --help)."""

try:
    from brats.cli import run_job
except ModuleNotFoundError as error:
    raise SystemExit(
        f"evaluate.py: {error.name} is not installed; run `make install`, then `source .venv/bin/activate`"
    ) from None
from brats.config import EvaluateConfig


def main(config: EvaluateConfig) -> None:
    from brats import storage
    from brats.cluster.connect import connected
    from brats.cluster.preflight import check_cluster
    from brats.cluster.quiet import native_log_hidden
    from brats.pipeline.evaluate import evaluate

    inputs = {"--predictions": config.predictions, "--references": config.references}
    storage.check_roundtrip(storage.absolute(config.out))
    with native_log_hidden(), connected(wait_minutes=config.wait_minutes):
        check_cluster(inputs, config.out, wait_minutes=config.wait_minutes)
        print(evaluate(config).summary())


if __name__ == "__main__":
    run_job(main, EvaluateConfig)
