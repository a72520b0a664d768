"""Score NIfTI masks of any origin against the references of their cases, as `predict` scores its own."""

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from brats import storage
from brats.cluster import attempts
from brats.cluster.datasets import from_cases, run_cases
from brats.cluster.per_case import CASE_CPUS, CASE_MEMORY_BYTES, ray_step
from brats.config import EvaluateConfig
from brats.console import say
from brats.data.cases import CaseFiles, find_cases
from brats.data.challenges import AUTO
from brats.data.rejects import Reject
from brats.data.volume import check_same_grid, from_ras, read_labels
from brats.errors import BratsError, ConfigError
from brats.saved_config import SavedConfig
from brats.score.parts import Part, check_parts, write_part
from brats.score.results import Results, write_results
from brats.score.tables import score_rows
from brats.storage import FileInfo


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A reference and the prediction to score against it."""

    case: CaseFiles
    prediction: FileInfo


def evaluate(config: EvaluateConfig) -> Results:
    """Score every case that has both a reference and a prediction; then rebuild the tables.

    A reference without a prediction is a reject: leaving it out silently would flatter the means.

    Raises ConfigError when no prediction has a reference.
    """
    out = config.out
    pairs, rejects = find_pairs(config.predictions, config.references, config.coding)
    check_parts(out)
    SavedConfig.of("evaluate", config).claim(out)
    say("evaluate", f"{len(pairs)} cases")
    by_id = {pair.case.case_id: pair for pair in pairs}
    _score_pairs(by_id, out)  # all of them, each time: masks of equal size may differ
    return write_results(out, by_id.keys(), rejects, config=asdict(config), strict=config.strict)


def find_pairs(predictions: str, references: str, coding: str = AUTO) -> tuple[list[Pair], list[Reject]]:
    """References with their predictions, by case id, and the references that have none."""
    try:
        files = storage.list_files(predictions)
    except FileNotFoundError:
        raise ConfigError(f"--predictions: {predictions} does not exist") from None
    masks = {_stem(file.name): file for file in files if file.name.endswith((".nii", ".nii.gz"))}
    found = find_cases(references, (), coding)
    if not found.cases:
        raise BratsError(
            f"{references}: no usable case; the first of {len(found.rejects)} rejected: {found.rejects[0]}"
        )
    labelled = [case for case in found.cases if case.segmentation is not None]
    pairs = [Pair(case=case, prediction=masks[case.case_id]) for case in labelled if case.case_id in masks]
    if not pairs:
        raise ConfigError(
            f"{predictions}: none of its {len(masks)} NIfTI files is named <case_id>.nii.gz after one of the "
            f"{len(labelled)} references in {references}"
        )
    reason = f"no prediction {predictions}/<case_id>.nii.gz"
    missing = [case.case_id for case in labelled if case.case_id not in masks]
    return pairs, [
        *found.rejects,
        *(Reject(case_id=name, path=predictions, stage="find", reason=reason) for name in missing),
    ]


def _stem(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".nii")


def _score_pairs(pairs: Mapping[str, Pair], out: str) -> None:
    """Score every pair on the cluster. The step writes its part; the driver that of a reject."""

    def take(case_id: str, outcome: Any) -> None:
        if isinstance(outcome, Reject):
            write_part(out, Part(case_id=case_id, reject=outcome))

    step = functools.partial(score_pair, out=out)
    dataset = from_cases(pairs).map(
        ray_step(step, counter=attempts.start_counter(), doing="scoring", stage="read"),
        num_cpus=CASE_CPUS,
        memory=CASE_MEMORY_BYTES,
    )
    run_cases(dataset, "evaluate", len(pairs), take)


def score_pair(pair: Pair, out: str) -> None:
    """Step: score one prediction and write its part."""
    write_part(out, score(pair))


def score(pair: Pair) -> Part:
    """The metric rows of a pair. Raises CaseError when a file cannot be read, or the two do not fit together."""
    case, segmentation = pair.case, pair.case.segmentation
    assert segmentation is not None  # find_pairs leaves out cases without a reference
    reference, grid = read_labels(segmentation, case.coding)
    predicted, predicted_grid = read_labels(pair.prediction, case.coding)
    check_same_grid(segmentation, grid, pair.prediction, predicted_grid)
    rows: dict[str, Any] = score_rows(
        case_id=case.case_id,
        patient_id=case.patient_id,
        split=None,
        reference=np.moveaxis(from_ras(reference, grid), 2, 0),
        predicted=np.moveaxis(from_ras(predicted, grid), 2, 0),
        spacing_mm=grid.spacing_shw_mm,
        n_outside=0,
        first_slice=0,
    )
    return Part(case_id=case.case_id, **rows)
