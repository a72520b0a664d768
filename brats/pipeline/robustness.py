"""Robustness of a model: cases degraded in several ways are predicted and scored, and the Dice lost is compared."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from brats import storage
from brats.cluster.owned import owned
from brats.config import PredictConfig, RobustnessConfig
from brats.console import say
from brats.data.degrade import Degradation, degradations
from brats.errors import BratsError
from brats.pipeline.predict import predict
from brats.saved_config import SavedConfig
from brats.score.robustness import INTACT, ROBUSTNESS, compare_robustness, format_robustness, robustness_path
from brats.score.tables import read_case_metrics


@dataclass(frozen=True)
class Robustness:
    """The Dice that each degradation costs: the table, and the folder that it lies in."""

    out: str
    table: pa.Table

    def summary(self) -> str:
        """The table for the console, and where it is."""
        return f"{format_robustness(self.table)}\nrobustness  {robustness_path(self.out)}"


def robustness(config: RobustnessConfig) -> Robustness:
    """Predict and score the cases intact and in each degradation, as far as it is not done; then compare.

    Raises BratsError when no case has a reference, and what `predict` raises.
    """
    with owned(config.out, "degrade") as ownership:
        SavedConfig.of("robustness", config).claim(config.out)
        scores = score_all(config, degradations(config.degradations, read_modalities(config.model)))
        ownership.check()
        table = compare_robustness(scores)
        storage.write_table(robustness_path(config.out), ROBUSTNESS, table, config=asdict(config))
    return Robustness(config.out, table)


def read_modalities(model: str) -> tuple[str, ...]:
    """What the model takes, and so what of a case can be missing."""
    from brats.model.bundle import find_bundle
    from brats.model.ensemble import read_model

    return read_model(find_bundle(model)).modalities


def score_all(config: RobustnessConfig, wanted: Sequence[Degradation]) -> dict[str, pd.DataFrame]:
    """The scores of the cases by degradation, the intact ones first."""
    scores: dict[str, pd.DataFrame] = {}
    todo: list[tuple[str, Degradation | None]] = [(INTACT, None), *((each.name, each) for each in wanted)]
    for number, (name, degradation) in enumerate(todo, 1):
        say("degrade", f"{name}, {number} of {len(todo)}")
        results = predict(predict_config(config, name), degradation)
        scores[name] = read_case_metrics(results.out)
        if scores[name].empty:
            raise BratsError(f"{config.data}: no case has a reference segmentation, so there is no Dice to lose")
    return scores


def predict_config(config: RobustnessConfig, name: str) -> PredictConfig:
    """How the cases of one degradation are predicted: with the options of this job, into a folder of its own."""
    shared: dict[str, Any] = {
        option: getattr(config, option)
        for option in (
            "model",
            "data",
            "split",
            "coding",
            "hdf5_channels",
            "hdf5_spacing_mm",
            "batch_size",
            "workers",
            "device",
            "precision",
            "strict",
        )
    }
    return PredictConfig(**shared, out=storage.join(config.out, name), wait_minutes=config.wait_minutes)
