"""Score masks in NIfTI, made by any program, against the references of BraTS cases (see --help)."""

try:
    from brats.cli import run_job
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is missing; run `make install`, then `source .venv/bin/activate`") from None
from brats.config import EvaluateConfig


def main(config: EvaluateConfig) -> None:
    from brats.cluster.session import ready
    from brats.pipeline.evaluate import evaluate, stated_coding

    stated_coding(config)  # a wrong value is an error before Ray starts
    inputs = {"--predictions": config.predictions, "--references": config.references}
    with ready(inputs, config.out, config.wait_minutes):
        print(evaluate(config).summary())


if __name__ == "__main__":
    run_job(main, EvaluateConfig)
