"""The jobs as functions, `from brats import train`: what a job does, on Ray, without its command line."""

from collections.abc import Iterator
from contextlib import contextmanager

from brats.cluster.connect import NETWORK_MODULES
from brats.cluster.session import ready
from brats.config import EvaluateConfig, PredictConfig, PrepareConfig, TrainConfig
from brats.errors import BratsError
from brats.pipeline import predict as predicting
from brats.pipeline import prepare as preparing
from brats.pipeline.loggers.log import check_loggers
from brats.pipeline.prepare import Prepared
from brats.pipeline.scoring import evaluate as evaluating
from brats.pipeline.scoring.check import check_evaluation
from brats.pipeline.several.side_by_side import train_run
from brats.pipeline.train import TrainedRun
from brats.score.results import Results

STOPPED = "stopped; the same call keeps what is finished and does the rest"


@contextmanager
def briefly(debug: bool) -> Iterator[None]:
    """Have a notebook show an error of the block, or that it was interrupted, in one line.

    debug: show where it was raised, too
    """
    try:
        yield
    except BratsError as error:
        error.in_full = debug
        raise
    except KeyboardInterrupt as error:
        if not debug:
            vars(error)["_render_traceback_"] = lambda: [STOPPED]  # IPython calls it
        raise


def prepare(config: PrepareConfig) -> Prepared:
    """What jobs/prepare.py does. Raises BratsError with its one line, as all of these do."""
    with briefly(config.debug), ready({"--data": config.data}, config.out, config.wait_minutes):
        return preparing.prepare(config)


def train(config: TrainConfig) -> TrainedRun:
    """What jobs/train.py does; the options of a preset are those that are given, the environment sets none."""
    with briefly(config.debug):
        check_loggers(config)
        with ready({"--data": config.data}, config.out, config.wait_minutes, NETWORK_MODULES):
            return train_run(config)


def predict(config: PredictConfig) -> Results:
    """What jobs/predict.py does."""
    with (
        briefly(config.debug),
        ready({"--data": config.data, "--model": config.model}, config.out, config.wait_minutes, NETWORK_MODULES),
    ):
        return predicting.predict(config)


def evaluate(config: EvaluateConfig) -> Results:
    """What jobs/evaluate.py does, but for `--against`."""
    inputs = {"--predictions": config.predictions, "--references": config.references}
    with briefly(config.debug):
        evaluation = check_evaluation(config)  # a wrong value is an error before Ray starts
        with ready(inputs, evaluation.out, config.wait_minutes):
            return evaluating.evaluate(evaluation)
