"""Score the masks of a finished prediction again, without its model: mask and reference -> rows -> its tables."""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from brats import storage
from brats.cluster.datasets import from_cases, run_cases
from brats.cluster.owned import owned
from brats.cluster.per_case import file_to_file
from brats.config import EvaluateConfig, RulesName
from brats.console import say, some
from brats.data.cases import Hdf5Options
from brats.data.challenges import AUTO, scoring_rules
from brats.data.items import FoundItems, Item, find_items
from brats.data.layouts import LAYOUTS
from brats.data.masks import masks_path, read_masks
from brats.data.predicted import ALL_CASES, Prediction
from brats.data.references import read_on_image_grid
from brats.data.rejects import Reject, check_rejects, read_rejects
from brats.errors import BratsError, CaseError, ConfigError, StorageError
from brats.labels import TISSUES, Labels
from brats.pipeline.scoring.check import PredictionEvaluation
from brats.saved_config import SavedConfig, config_path
from brats.score.completed import completed, is_scored, predicted_regions
from brats.score.parts import Part, check_parts, part_path, read_parts, write_part
from brats.score.results import Results, write_results
from brats.score.tables import CASE_METRICS, TableName, metrics_path, score_rows
from brats.score.uncertainty_tables import UNCERTAINTY


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A predicted case to score again.

    part:      its result
    item:      where its reference is
    mask_path: of its mask in Parquet
    regions:   that the model predicts
    """

    part: Part
    item: Item
    mask_path: str
    regions: tuple[str, ...]


def rescore(evaluation: PredictionEvaluation) -> Results:
    """Score the masks of a prediction by every metric of today, and rebuild the tables.

    In place, the tables of the prediction itself are completed: what is there is kept, case by case, and cases that
    have every metric are left alone. Elsewhere all cases are scored, and the prediction is only read.

    Raises ConfigError where no reference is found or another job is at work in the folder; BratsError when no case
    could be scored, or a score that is there differs from that of the mask.
    """
    config, prediction, out = evaluation.config, evaluation.prediction, evaluation.out
    in_place = evaluation.in_place
    with owned(out, "evaluate") as ownership:
        if not in_place:
            check_parts(out)
            SavedConfig.of("evaluate", config).claim(out)
        parts = read_parts(prediction.out)
        found = find_references(config, prediction)
        items = {item.case_id: item for item in found.items}
        for line in describe(prediction, parts, found, in_place=in_place):
            say("evaluate", line)
        todo = to_score(parts, items, prediction.out, every_case=not in_place)
        rejects, unlabelled = _score_all(todo, out, config.challenge_rules, in_place=in_place)
        ownership.check()
        if in_place:
            results = _write_in_place(out, parts, items)
            results = dataclasses.replace(results, rejects=[*results.rejects, *rejects])
            _check_same(results, rejects, out)
        else:
            results = _write_elsewhere(evaluation, parts, todo.keys() - unlabelled)
    check_rejects(results, strict=config.strict)
    return results


def find_references(config: EvaluateConfig, prediction: Prediction) -> FoundItems:
    """The cases with the references: those of `--references`, else those that were predicted.

    Raises ConfigError where there are none, naming the option.
    """
    place = config.references or prediction.data
    if place is None:
        raise ConfigError(
            f"--references: {config_path(prediction.out)} does not say where its cases lay; name them"
        )
    coding: str = config.coding
    hdf5 = Hdf5Options(spacing_hwz_mm=config.hdf5_spacing_mm)
    if not config.references:
        coding, hdf5 = prediction.coding if coding == AUTO else coding, prediction.hdf5
    try:
        return find_items(place, prediction.run, (), ALL_CASES, coding, hdf5)
    except ConfigError as error:
        if config.references:
            raise
        raise ConfigError(
            f"--references: the cases of the prediction are not where they were ({error}); name case folders or a "
            "prepared dataset with their references"
        ) from error


def describe(prediction: Prediction, parts: Mapping[str, Part], found: FoundItems, *, in_place: bool) -> list[str]:
    """What is scored, and which cases are not, a line each."""
    items = {item.case_id: item for item in found.items}
    usable = [name for name, part in parts.items() if not part.reject]
    what = "their tables get what they lack" if in_place else "they are only read"
    lines = [f"{len(usable)} cases predicted in {prediction.out}; {what}"]
    if gone := [name for name in usable if name not in items]:
        lines.append(f"not among the references, not scored anew: {some(gone)}")
    expected = [name for name, item in items.items() if prediction.split in (ALL_CASES, item.split)]
    if missing := [name for name in expected if name not in parts]:
        lines.append(f"not predicted, left out: {some(missing)}; the command that predicted the others does them")
    return [*lines, *found.notes]


def to_score(
    parts: Mapping[str, Part], items: Mapping[str, Item], out: str, *, every_case: bool
) -> dict[str, Masked]:
    """The cases to score, by id: those whose result lacks a metric, or all that were predicted.

    out: the prediction
    """
    regions = predicted_regions([*parts.values()])
    return {
        name: Masked(part=part, item=items[name], mask_path=masks_path(out, name), regions=regions)
        for name, part in parts.items()
        if not part.reject
        and name in items
        and (every_case or not part.has_every_convention or not is_scored(part))
    }


def _score_all(
    todo: Mapping[str, Masked], out: str, rules: RulesName, *, in_place: bool
) -> tuple[list[Reject], list[str]]:
    """Score these cases on the cluster, each into its part.

    Returns the rejects, none of which is written in place, and the cases without a segmentation. Raises BratsError
    where every case is rejected in place.
    """
    rejects: list[Reject] = []
    unlabelled: list[str] = []

    def take(case_id: str, outcome: Any) -> None:
        if isinstance(outcome, Reject):
            rejects.append(outcome)
            if not in_place:
                write_part(out, Part(case_id=case_id, reject=outcome))
        elif not outcome:
            unlabelled.append(case_id)

    if todo:
        step = functools.partial(score_masked, out=out, in_place=in_place, rules=rules)
        dataset = file_to_file(from_cases(todo), step, doing="scoring")
        run_cases(dataset, "evaluate", len(todo), take)
    if len(unlabelled) == len(todo) and in_place:
        say("evaluate", "every case with a reference has every metric: nothing to add")
    if unlabelled:
        say("evaluate", f"without a segmentation, so without scores: {some(sorted(unlabelled))}")
    if in_place and rejects and len(rejects) == len(todo):
        raise BratsError(f"{out}: none of {len(todo)} cases could be scored; the first: {min(rejects, key=str)}")
    return sorted(rejects, key=lambda reject: reject.case_id), unlabelled


def score_masked(masked: Masked, out: str, in_place: bool, rules: RulesName) -> bool:
    """Step: score a mask, and write its part; False, and nothing written, where the case has no reference.

    in_place: complete the part of the prediction, and keep what it holds
    rules:    `--challenge-rules`

    Raises CaseError for a mask or a reference that cannot be used, and as `completed` does.
    """
    part, item = masked.part, masked.item
    modality = part.sources[0].kind if part.sources else ""
    reference = read_on_image_grid(item.source, modality)
    if reference is None:
        return False
    predicted = read_predicted(masked.mask_path, reference.grid.shape)
    known: Mapping[str, Any] = part.cases[0] if part.cases else vars(item)
    found: dict[str, Any] = score_rows(
        case_id=item.case_id,
        patient_id=known["patient_id"],
        split=known["split"],
        reference=np.moveaxis(reference.labels, 2, 0),
        predicted=np.moveaxis(predicted, 2, 0),
        spacing_shw_mm=reference.grid.spacing_shw_mm,
        n_outside=0,
        first_slice=0,
        rules=known.get("challenge_rules") or scoring_rules(item.case_id, LAYOUTS[reference.layout], rules),
        regions=masked.regions,
    )
    fresh = Part(case_id=item.case_id, coding=item.coding, warnings=reference.warnings, **found)
    write_part(out, completed(part, found, part_path(out, item.case_id)) if in_place else fresh)
    return True


def read_predicted(path: str, shape: tuple[int, int, int]) -> Labels:
    """A mask in Parquet, (X, Y, Z) of this shape. Raises CaseError for one that cannot be used."""
    try:
        labels = read_masks(path)
    except FileNotFoundError as error:
        raise CaseError(path, "no such mask; predict the case again") from error
    except StorageError as error:
        raise CaseError(path, str(error).removeprefix(f"{path}: ")) from error
    except (IndexError, ValueError) as error:
        raise CaseError(path, f"damaged ({error}); predict the case again") from error
    if labels.shape != shape:
        raise CaseError(path, f"its mask has shape {labels.shape}, the reference {shape}")
    if labels.max(initial=0) > max(TISSUES.values()):
        raise CaseError(path, f"its mask has the label {labels.max()}, a mask of predict.py 0 to {len(TISSUES)}")
    return labels


def _write_elsewhere(
    evaluation: PredictionEvaluation, parts: Mapping[str, Part], scored: Collection[str]
) -> Results:
    """The tables of another folder, with the rejects of the prediction. Raises BratsError for no scored case."""
    prediction = evaluation.prediction
    if not scored:
        raise BratsError(f"{prediction.out}: no predicted case has a reference to score it against")
    earlier = [part.reject for part in parts.values() if part.reject]
    earlier += [reject for reject in read_rejects(prediction.out) if reject.case_id not in parts]
    return write_results(evaluation.out, scored, earlier, config=asdict(evaluation.config))


def _write_in_place(out: str, parts: Mapping[str, Part], items: Collection[str]) -> Results:
    """The tables of a prediction rebuilt, of the same cases and with the configuration that they carry."""
    rejects = [reject for reject in read_rejects(out) if reject.case_id not in parts]
    known = _tabled_cases(out) or {*parts}
    case_ids = [name for name, part in parts.items() if part.reject or name in known or name in items]
    return write_results(out, case_ids, rejects, config=_table_config(out))


def _tabled_cases(out: str) -> set[str]:
    """The cases in the tables of a prediction; none before its end, and none that has left its data since."""
    found: set[str] = set()
    kinds: dict[TableName, storage.TableKind] = {"cases": CASE_METRICS, "uncertainty": UNCERTAINTY}
    for name, kind in kinds.items():
        with suppress(FileNotFoundError):
            found |= {*storage.read_table(metrics_path(out, name), kind)["case_id"].to_pylist()}
    return found


def _table_config(out: str) -> dict[str, Any]:
    """The configuration that the tables of a prediction carry, or would, had it not been interrupted."""
    path = metrics_path(out, "cases")
    try:
        schema = storage.read_table(path, CASE_METRICS).schema
    except FileNotFoundError:
        saved = storage.read_json(config_path(out))
        return {**saved["result"], **saved["execution"]}
    return dict(storage.read_metadata(schema, path, CASE_METRICS)["config"])


def _check_same(results: Results, rejects: Sequence[Reject], out: str) -> None:
    """Show the results and raise BratsError where what was there differs from what the masks give."""
    changed = [reject for reject in rejects if reject.path == part_path(out, reject.case_id)]
    if changed:
        print(results.summary(), flush=True)
        n_changed = f"{len(changed)} case{'s' if len(changed) > 1 else ''}"
        raise BratsError(f"scores of {n_changed} are not those of the masks; the first: {changed[0]}")
