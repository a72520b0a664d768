"""Scored runs of a comparison and what its page says of them, made up: nothing is trained."""

from collections.abc import Mapping, Sequence

import pandas as pd

from brats.labels import REGIONS
from brats.report.comparison import Facts
from brats.score.compare import Cost, ScoredRun
from brats.score.metrics import METRICS

COST = Cost(n_parameters=5_600_000, training_minutes=1.5, seconds_per_case=0.25, peak_memory_mb=2048.0)

FACTS = Facts(
    reference="brats",
    twins={},
    data="/data/prepared",
    n_cases=8,
    n_patients=7,
    length="for 300 steps",
    timed_on="an NVIDIA T4",
    published={"binary": "Dice .98 by Somebody"},
    claims=[],
    background={"accuracy": 0.986, "dice": 0.251, "precision": 0.986, "sensitivity": 0.986, "specificity": 0.995},
    background_of_two=dict.fromkeys(("accuracy", "precision", "sensitivity", "specificity"), 0.986) | {"dice": 0.5},
    failures={},
    left_out={},
)


def scored_run(
    preset: str,
    dice: Mapping[str, float],
    *,
    seed: int = 0,
    regions: Sequence[str] = tuple(REGIONS),
    hd95_mm: float = 4.0,
    notebook_dice: float = 0.9,
    cost: Cost = COST,
) -> ScoredRun:
    """A run whose cases, one of each patient, have this Dice in every region that it tells; in others nothing."""
    values = {metric.name: 0.5 for metric in METRICS} | {"hd95_mm": hd95_mm}
    cases = [
        {"case_id": case_id, "patient_id": f"patient {case_id}", "region": region}
        | ({**values, "dice": value} if region in regions else dict.fromkeys(values))
        for case_id, value in dice.items()
        for region in REGIONS
    ]
    notebook = [
        {"case_id": case_id, "metric": metric, "averaging": "", "value": value}
        for case_id in dice
        for metric, value in (("accuracy", 0.98), ("dice", notebook_dice))
    ]
    frame = pd.DataFrame(cases).astype(dict.fromkeys(values, float))
    return ScoredRun(preset=preset, seed=seed, cases=frame, notebook=pd.DataFrame(notebook), cost=cost)


def dice_of(first: float, step: float, n: int = 8) -> dict[str, float]:
    """Dice of n cases "a", "b", ...: `first`, then `step` more each."""
    return {chr(ord("a") + number): first + number * step for number in range(n)}
