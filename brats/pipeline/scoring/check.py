"""Options of an evaluation, checked against what `--predictions` is: masks of any program, or a prediction."""

from dataclasses import dataclass, replace

from brats import storage
from brats.config import EvaluateConfig
from brats.data.codings import Coding
from brats.data.predicted import Prediction, find_prediction
from brats.data.prediction_coding import CASE, parse_prediction_coding
from brats.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MaskEvaluation:
    """Masks of any program, to score against references.

    config:     with the name of the coding that `--prediction-coding` means, however it was written
    references: folder of the cases
    coding:     of the masks; None for that of each case's own segmentation
    out:        folder for the tables
    """

    config: EvaluateConfig
    references: str
    coding: Coding | None
    out: str


@dataclass(frozen=True, kw_only=True)
class PredictionEvaluation:
    """A finished prediction, to score again.

    out: folder for the tables, that of the prediction itself unless `--out` names another
    """

    config: EvaluateConfig
    prediction: Prediction
    out: str

    @property
    def in_place(self) -> bool:
        """Whether the tables of the prediction itself are completed."""
        return self.out == self.prediction.out


Evaluation = MaskEvaluation | PredictionEvaluation


def check_evaluation(config: EvaluateConfig) -> Evaluation:
    """What is to be scored, and into which folder.

    Raises ConfigError for an option that is missing, or does not fit what `--predictions` is.
    """
    coding = parse_prediction_coding(config.prediction_coding)
    if prediction := find_prediction(config.predictions):
        return _of_prediction(config, prediction, coding)
    if not (storage.is_remote(config.predictions) or storage.exists(config.predictions)):
        raise ConfigError(f"--predictions: {config.predictions} does not exist")
    if config.references is None or config.out is None:
        needed = {"--references": config.references, "--out": config.out}
        lacking = " and ".join(option for option, value in needed.items() if value is None)
        raise ConfigError(f"{lacking}: needed, since {config.predictions} was not written by predict.py")
    return MaskEvaluation(
        config=replace(config, prediction_coding=coding.name if coding else CASE),
        references=config.references,
        coding=coding,
        out=config.out,
    )


def _of_prediction(config: EvaluateConfig, prediction: Prediction, coding: Coding | None) -> PredictionEvaluation:
    """A prediction to score again. Raises ConfigError for a stated coding, or where `--out` is the prediction."""
    if coding:
        raise ConfigError(
            f"--prediction-coding: the masks in {prediction.out} are of predict.py, whose labels are known; leave "
            "it out"
        )
    if config.out == prediction.out:
        raise ConfigError(f"--out: {config.out} is the prediction itself; leave --out out to add to its tables")
    return PredictionEvaluation(config=config, prediction=prediction, out=config.out or prediction.out)
