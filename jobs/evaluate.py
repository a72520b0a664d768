"""Score masks, NIfTI of any program or those of a finished prediction, and compare two predictions (see --help)."""

try:
    from brats.cli import run_job
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is missing; run `make install`, then `source .venv/bin/activate`") from None
from brats.config import EvaluateConfig


def main(config: EvaluateConfig) -> None:
    from brats.cluster.session import ready
    from brats.pipeline.scoring.against import against, scored_folder
    from brats.pipeline.scoring.check import check_evaluation
    from brats.pipeline.scoring.evaluate import evaluate

    if not (config.against and scored_folder(config.predictions)):  # two tables are compared without Ray
        evaluation = check_evaluation(config)  # a wrong value is an error before Ray starts
        inputs = {"--predictions": config.predictions, "--references": config.references}
        with ready(inputs, evaluation.out, config.wait_minutes):
            print(evaluate(evaluation).summary())
    if config.against:
        print(against(config.predictions, config.against, config.out).summary())


if __name__ == "__main__":
    run_job(main, EvaluateConfig)
