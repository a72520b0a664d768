"""From cases and a model to masks and metric tables: read -> U-Net -> score and write, each case on its own."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from brats import storage
from brats.cluster import attempts
from brats.cluster.capacity import cluster_capacity
from brats.cluster.datasets import from_cases, run_cases
from brats.cluster.identify import identify
from brats.cluster.owned import Ownership, owned
from brats.cluster.per_case import CASE_MEMORY_BYTES, ray_step
from brats.cluster.placement import Placement, place_workers
from brats.cluster.preflight import check_gpus
from brats.config import PredictConfig, RulesName
from brats.console import say, some
from brats.data.case import HASH_VERSION, Case
from brats.data.cases import Hdf5Options
from brats.data.challenges import scoring_rules
from brats.data.degrade import Degradation, degrade
from brats.data.items import Item, PreparedCase, find_items, read_source
from brats.data.label_description import write_label_descriptions
from brats.data.layouts import LAYOUTS
from brats.data.masks import (
    masks_dir,
    masks_path,
    mha_path,
    nifti_dir,
    nifti_path,
    probabilities_dir,
    probabilities_path,
    write_masks,
    write_probabilities,
)
from brats.data.rejects import Reject, check_rejects
from brats.data.segmented_case import SegmentedCase
from brats.data.sources import same_sources
from brats.data.volume import mask_bytes
from brats.labels import REGIONS, Labels
from brats.pipeline.predictor import Predictor, Work, predictor_cpus
from brats.saved_config import SavedConfig
from brats.score import tables
from brats.score.parts import Part, is_done, part_path, parts_dir, read_parts, write_part
from brats.score.results import Results, write_results
from brats.score.uncertainty import Floats, region_uncertainties
from brats.score.uncertainty_tables import uncertainty_rows

BESIDE_NETWORK_CPUS = 0.25  # of the steps beside the network, so that they find room on a small machine


def predict(config: PredictConfig, degradation: Degradation | None = None) -> Results:
    """Predict and score every case of `config.data` that is not done yet; then rebuild the tables.

    degradation: of the cases, applied after they are read

    Raises BratsError when no case is usable or, with `strict`, when one was rejected; ConfigError where another job
    is at work in `config.out`.
    """
    with owned(config.out, "predict") as ownership:
        return _predict(config, ownership, degradation)


def _predict(config: PredictConfig, ownership: Ownership, degradation: Degradation | None) -> Results:
    from brats.model.bundle import find_bundle
    from brats.model.decoding import Decoding
    from brats.model.ensemble import read_model

    data, out = config.data, config.out
    bundle = find_bundle(config.model)
    model = read_model(bundle)  # here too, to refuse a broken bundle before anything is read
    hdf5 = Hdf5Options.of(config)
    items, found_rejects, notes = find_items(
        data, config.model, model.modalities, config.split, config.coding, hdf5
    )
    config = replace(config, model=bundle)
    parts = read_parts(out)
    applied: dict[str, Any] = {"degradation": asdict(degradation)} if degradation else {}
    if model.decoding.rules != Decoding().rules:
        applied["decoding"] = model.decoding.rules
    SavedConfig.of("predict", config, weights=model.fingerprint, **applied).claim(out)
    items = settle_items(items, parts, out)
    todo = [
        item for item in items if not is_done(parts.get(item.case_id)) or lacks_files(parts[item.case_id], config)
    ]
    say("predict", f"{len(items)} cases of {data}; {len(items) - len(todo)} done before")
    for line in (str(model.decoding), *notes):
        say("predict", line)
    warn_of_training_cases(items, model.trained_on)
    _name_left_over(parts, [*items, *found_rejects], data, out)
    if todo:
        placement = place_workers(config.device, config.workers, cpu_workers=0, wait_minutes=config.wait_minutes)
        reading = functools.partial(read_item, modalities=model.modalities, degradation=degradation)
        _predict_items(todo, config, reading, placement)
    ownership.check()
    for folder in (parts_dir(out), masks_dir(out), nifti_dir(out), probabilities_dir(out)):
        storage.remove_unfinished(folder)
    saved = {**asdict(config), "decoding": asdict(model.decoding)}
    results = write_results(out, {item.case_id for item in items}, found_rejects, config=saved)
    write_label_descriptions(out, {item.coding for item in items if config.nifti})
    check_rejects(results, strict=config.strict)
    return results


def settle_items(items: Sequence[Item], parts: dict[str, Part], out: str) -> list[Item]:
    """The cases with their files identified. Results made from other files, or read in another coding, are removed,
    also from `parts`.

    The part goes first: what is interrupted here, or before the case is done again, counts as not done.
    """
    before = {case_id: part.sources for case_id, part in parts.items()}
    sources = identify(before, {item.case_id: item.sources for item in items}, "predict")
    settled = [replace(item, sources=sources[item.case_id]) for item in items]
    changed = []
    for item in settled:
        part = parts.get(item.case_id)
        if part is None:
            continue
        if part.coding != item.coding or not same_sources(part.sources, item.sources):
            changed.append(item.case_id)
            del parts[item.case_id]
            for path_of in (part_path, masks_path, nifti_path, mha_path, probabilities_path):
                storage.remove(path_of(out, item.case_id))
        elif part.sources != item.sources:  # touched or moved: the next start need not read it
            parts[item.case_id] = replace(part, sources=item.sources)
            write_part(out, parts[item.case_id])
    if changed:
        say("predict", f"made from other files than these, predicted again: {some(changed)}")
    return settled


def _name_left_over(parts: Mapping[str, Part], here: Collection[Item | Reject], data: str, out: str) -> None:
    """Name the results of cases that are not in the data: their masks stay, the tables leave them out."""
    if left := sorted({name for name, part in parts.items() if not part.reject} - {case.case_id for case in here}):
        say("predict", f"not in {data}, left out of the tables, though their masks stay in {out}: {some(left)}")


def lacks_files(part: Part, config: PredictConfig) -> bool:
    """Whether a case that is done still lacks a file that is asked for now."""
    if part.reject:
        return False
    out, case_id = config.out, part.case_id
    if config.nifti and not any(storage.exists(path_of(out, case_id)) for path_of in (nifti_path, mha_path)):
        return True
    return config.probabilities and not storage.exists(probabilities_path(out, case_id))


def warn_of_training_cases(items: Collection[Item], trained_on: Mapping[str, Mapping[str, str]]) -> None:
    """Say which cases the model knows: by case, by patient and, of prepared cases, by the hash of their brain."""
    patients = {case["patient_id"] for case in trained_on.values()}
    hashes = {case["voxel_hash"] for case in trained_on.values() if case["voxel_hash"].startswith(HASH_VERSION)}
    if any(not case["voxel_hash"].startswith(HASH_VERSION) for case in trained_on.values()):
        say(
            "predict",
            "the model has voxel hashes of an earlier version of brats-ray: cases that it was trained on are known "
            "by case and patient id alone, not by their voxels",
        )
    seen = [
        item.case_id
        for item in items
        if item.case_id in trained_on
        or item.patient_id in patients
        or (isinstance(item.source, PreparedCase) and item.source.voxel_hash in hashes)
    ]
    if seen:
        say(
            "predict",
            f"WARNING: the model was trained or chosen on the patients of {len(seen)} of these cases ({seen[0]}"
            f"{', ...' if len(seen) > 1 else ''}); their scores say nothing about new patients",
        )


def _predict_items(
    todo: Sequence[Item],
    config: PredictConfig,
    reading: Callable[[Item], tuple[Item, Case]],
    placement: Placement,
) -> None:
    """Stream the cases through reading, the network, and scoring and writing.

    Raises StorageError, after the others are done, when a case could not be written.
    """
    from brats.model.levels import segment

    say("predict", f"{placement}")
    by_id = {item.case_id: item for item in todo}

    def take(case_id: str, outcome: Any) -> None:
        if isinstance(outcome, Reject):  # the part of any other case is written by the last step
            item = by_id[case_id]
            part = Part(case_id=case_id, sources=item.sources, coding=item.coding, reject=outcome)
            write_part(config.out, part)

    counter = attempts.start_counter()
    work = functools.partial(segment, keep_levels=config.probabilities)
    scoring = functools.partial(score_and_write, out=config.out, nifti=config.nifti, rules=config.challenge_rules)
    dataset = through_network(by_id, config, reading, work, placement, counter).map(
        ray_step(scoring, counter=counter, doing="scoring", stage="predict"), num_cpus=BESIDE_NETWORK_CPUS
    )
    run_cases(dataset, "predict", len(todo), take)


def through_network(
    items: Mapping[str, Item],
    config: PredictConfig,
    reading: Callable[[Item], tuple[Item, Case]],
    work: Work,
    placement: Placement,
    counter: Any,
) -> Any:
    """The dataset of cases by id that are read and then given to the network of `config.model`; see `Predictor`."""
    import ray.data

    check_gpus(placement)
    return (
        from_cases(items)
        .map(
            ray_step(reading, counter=counter, doing="reading", stage="read"),
            num_cpus=BESIDE_NETWORK_CPUS,
            memory=CASE_MEMORY_BYTES,
        )
        .map(
            Predictor,
            fn_constructor_kwargs={"config": config, "work": work, "placement": placement, "counter": counter},
            compute=ray.data.ActorPoolStrategy(size=min(placement.workers, len(items))),
            num_cpus=predictor_cpus(placement, cluster_capacity().machines),
            num_gpus=1 if placement.use_gpu else 0,
            accelerator_type=placement.accelerator,
        )
    )


def read_item(item: Item, modalities: Sequence[str], degradation: Degradation | None = None) -> tuple[Item, Case]:
    """Step: read a case, and degrade it where asked."""
    case = read_source(item.source, modalities)
    return item, degrade(case, degradation) if degradation else case


def score_and_write(predicted: tuple[Item, Case, SegmentedCase], out: str, nifti: bool, rules: RulesName) -> None:
    """Step: write the mask of a case, score it against its reference, and write its part last."""
    item, case, found = predicted
    if found.levels is not None:
        crops = zip(found.regions, np.moveaxis(found.levels, 1, 0), strict=True)
        write_probabilities(out, case.case_id, {region: case.on_source_grid(levels) for region, levels in crops})
    write_case(out, item, case, found.labels, nifti=nifti, found=found, rules=rules)


def write_case(
    out: str,
    item: Item,
    case: Case,
    predicted: Labels,
    *,
    nifti: bool,
    found: SegmentedCase | None = None,
    rules: RulesName = "gli",
) -> None:
    """Write the mask of a case, in the form of its images too where asked, and its part with the scores."""
    volume = case.on_source_grid(predicted)
    write_masks(out, case.case_id, volume)
    if nifti:
        path_of = mha_path if case.grid.is_mha else nifti_path
        storage.write_bytes(path_of(out, case.case_id), mask_bytes(volume, case.grid, case.coding))
    write_part(out, score_case(item, case, predicted, found, rules))


def score_case(
    item: Item, case: Case, predicted: Labels, found: SegmentedCase | None = None, rules: RulesName = "gli"
) -> Part:
    """The metric rows of a case, without scores where it has no reference.

    found: the prediction with its probabilities, where they are known
    rules: `--challenge-rules`
    """
    rows: dict[str, Any] = {}
    entropy_bits: dict[str, Floats] = {}
    if found is not None:
        is_scored = case.labels is not None
        uncertainty = region_uncertainties(found, is_scored=is_scored)
        entropy_bits = {region: each.slice_entropy_bits for region, each in uncertainty.items()}
        rows |= uncertainty_rows(case.case_id, item.patient_id, uncertainty)
    if case.labels is not None:
        rows |= tables.score_rows(
            case_id=case.case_id,
            patient_id=item.patient_id,
            split=item.split,
            reference=case.source_slices(case.labels),
            predicted=case.source_slices(predicted),
            spacing_shw_mm=case.grid.spacing_shw_mm,
            n_outside=case.n_outside,
            first_slice=case.source_box.start[2],
            first_in_slice=case.source_box.start[:2],
            rules=scoring_rules(case.case_id, LAYOUTS[case.layout], rules),
            entropy_bits=entropy_bits,
            regions=REGIONS if found is None else found.regions,
        )
    return Part(case_id=item.case_id, sources=case.sources, coding=case.coding, warnings=case.warnings, **rows)
