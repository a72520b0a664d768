"""From cases and a model to masks and metric tables: read -> U-Net -> score and write, each case on its own."""

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from brats import storage
from brats.cluster import attempts
from brats.cluster.datasets import case_statuses
from brats.cluster.placement import Machine, Placement, look, place_workers
from brats.cluster.preflight import CASE_MEMORY_BYTES, check_gpus
from brats.config import PredictConfig
from brats.console import say
from brats.data.cases import CaseFiles, find_cases
from brats.data.dataset import is_prepared, read_case_table, slices_path
from brats.data.masks import write_masks
from brats.data.preprocess import Case, check_modalities, in_source_axes, read_case
from brats.data.run_split import read_split
from brats.data.slices import SliceFile
from brats.data.volume import nifti_bytes
from brats.errors import BratsError, CaseError, ConfigError, Reject, StorageError
from brats.labels import Labels
from brats.pipeline.predictor import Predictor
from brats.saved_config import SavedConfig
from brats.score import tables
from brats.score.parts import Part, is_done, read_parts, write_part
from brats.score.results import Results, write_results

SCORING_CPUS = 0.25  # of the steps beside the network, so that they find room on a small machine


@dataclass(frozen=True, kw_only=True)
class Item:
    """A case to predict: where its data is, and what the tables say of it.

    prepared:   path of the prepared case, or "" where the case is read from its own files
    files:      the case's own files as JSON, or ""
    voxel_hash: of a prepared case, else ""
    """

    case_id: str
    patient_id: str
    split: str | None
    prepared: str
    files: str
    source_bytes: int
    voxel_hash: str


def predict(config: PredictConfig) -> Results:
    """Predict and score every case of `config.data` that is not done yet; then rebuild the tables.

    Raises BratsError when no case is usable or, with `strict`, when one was rejected.
    """
    from brats.model.bundle import find_bundle, load_bundle

    model, data, out = (storage.absolute(path) for path in (config.model, config.data, config.out))
    bundle = find_bundle(model)
    _, card = load_bundle(bundle)  # here too, so that a broken bundle is refused before anything is read
    items, found_rejects = find_items(data, model, card.modalities, config.split)
    weights = hashlib.sha256(storage.read_bytes(storage.join(bundle, "model.safetensors"))).hexdigest()[:16]
    config = dataclasses.replace(config, model=bundle, data=data, out=out)
    SavedConfig.of("predict", config, weights=weights).claim(out)
    parts = read_parts(out)
    todo = [
        item
        for item in items
        if not is_done(parts.get(item.case_id), item.source_bytes) or _lacks_nifti(parts[item.case_id], config)
    ]
    say("predict", f"{len(items)} cases of {data}; {len(items) - len(todo)} done before")
    _warn_of_training_cases(items, card.trained_on)
    if todo:
        placement = place_workers(config.device, config.workers, cpu_workers=0, wait_minutes=config.wait_minutes)
        _predict_items(todo, config, card.modalities, placement)
    case_ids = {item.case_id for item in items}
    return write_results(out, case_ids, found_rejects, config=asdict(config), strict=config.strict)


def find_items(data: str, model: str, modalities: Sequence[str], split: str) -> tuple[list[Item], list[Reject]]:
    """The cases of a prepared dataset or of case folders, those of one split where asked, and what is unusable.

    The split is that of the run whose model it is. Raises ConfigError when it is asked for and cannot be told, and
    when no case is left.
    """
    split_of = _run_split(model)
    if split != "all" and split_of is None:
        raise ConfigError(f"--split: {split} is known only for a run of train.py; {model} has no split.parquet")
    rejects: list[Reject] = []
    if is_prepared(data):
        items = [
            Item(
                case_id=row["case_id"],
                patient_id=row["patient_id"],
                split=(split_of or {}).get(row["case_id"]),
                prepared=slices_path(data, row["case_id"]),
                files="",
                source_bytes=row["source_bytes"],
                voxel_hash=row["voxel_hash"],
            )
            for row in read_case_table(data)
        ]
    else:
        discovery = find_cases(data, modalities)
        rejects = list(discovery.rejects)
        items = [
            Item(
                case_id=files.case_id,
                patient_id=files.patient_id,
                split=(split_of or {}).get(files.case_id),
                prepared="",
                files=json.dumps(asdict(files)),
                source_bytes=files.source_bytes(modalities),
                voxel_hash="",
            )
            for files in discovery.cases
        ]
    chosen = [item for item in items if split in ("all", item.split)]
    rejects = [reject for reject in rejects if split in ("all", (split_of or {}).get(reject.case_id))]
    if not items and rejects:
        raise BratsError(f"{data}: no usable case; the first of {len(rejects)} rejected: {rejects[0]}")
    if not chosen:
        raise ConfigError(f"{data}: none of its {len(items)} usable cases is in the {split} split of {model}")
    return chosen, rejects


def _run_split(model: str) -> dict[str, str] | None:
    """The split of every case of the run that made the model; None for a bundle on its own."""
    try:
        rows = read_split(model)
    except FileNotFoundError:
        return None
    return {row["case_id"]: row["split"] for row in rows}


def _lacks_nifti(part: Part, config: PredictConfig) -> bool:
    """Whether a case that is done still lacks the NIfTI mask that is asked for now."""
    path = storage.join(config.out, "nifti", f"{part.case_id}.nii.gz")
    return config.nifti and part.reject is None and not storage.exists(path)


def _warn_of_training_cases(items: Collection[Item], trained_on: Mapping[str, Mapping[str, str]]) -> None:
    patients = {case["patient_id"] for case in trained_on.values()}
    hashes = {case["voxel_hash"] for case in trained_on.values()}
    seen = [
        item.case_id
        for item in items
        if item.case_id in trained_on or item.patient_id in patients or item.voxel_hash in hashes
    ]
    if seen:
        say(
            "predict",
            f"WARNING: the model was trained or chosen on the patients of {len(seen)} of these cases ({seen[0]}"
            f"{', ...' if len(seen) > 1 else ''}); their scores say nothing about new patients",
        )


def _predict_items(
    todo: Sequence[Item], config: PredictConfig, modalities: Sequence[str], placement: Placement
) -> None:
    """Stream the cases through reading, the network, and scoring with writing.

    Raises StorageError, after the others are done, when a case could not be written.
    """
    import ray.data

    say("predict", f"{placement}")
    check_gpus(placement)
    rows = [{"case_id": item.case_id, "item": json.dumps(asdict(item))} for item in todo]
    counter = attempts.start_counter()
    dataset = (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map(
            read_item,
            fn_kwargs={"modalities": list(modalities), "counter": counter},
            num_cpus=SCORING_CPUS,
            memory=CASE_MEMORY_BYTES,
        )
        .map(
            Predictor,
            fn_constructor_kwargs={"config": config, "placement": placement, "counter": counter},
            compute=ray.data.ActorPoolStrategy(size=min(placement.workers, len(rows))),
            num_cpus=predictor_cpus(placement, look().machines),
            num_gpus=1 if placement.use_gpu else 0,
            accelerator_type=placement.accelerator,
        )
        .map(
            score_and_write,
            fn_kwargs={"out": config.out, "nifti": config.nifti, "counter": counter},
            num_cpus=SCORING_CPUS,
        )
    )
    for _ in case_statuses(dataset, "predict", len(rows)):
        pass  # the steps write what they make


def predictor_cpus(placement: Placement, machines: Sequence[Machine]) -> float:
    """CPUs that a predictor reserves: so few that all of them leave half of the smallest machine free.

    Ray starts the predictors of a lost machine again on those that remain, however full that makes them. Without a
    CPU for the tasks that read and score, all would wait for ever. On GPUs they wait for another GPU instead.
    """
    if placement.use_gpu:
        return placement.cpus
    smallest = min((machine.cpus for machine in machines if machine.cpus), default=1.0)
    return min(placement.cpus, smallest / 2 / placement.workers)


def read_item(row: dict[str, Any], modalities: Sequence[str], counter: Any) -> dict[str, Any]:
    """Ray step: read a case, prepared or from its own files. A case that cannot be read travels on as a reject."""
    item = Item(**json.loads(row["item"]))
    try:
        attempts.begin(counter, item.case_id, "reading")
        if item.prepared:
            try:
                file = SliceFile(item.prepared)
                check_modalities(file.intensities, modalities)
                case = file.read_case(modalities)
            except (FileNotFoundError, StorageError) as error:
                raise CaseError(item.prepared, str(error), transient=True) from error
        else:
            case = read_case(CaseFiles.from_json(json.loads(item.files)), modalities)
    except CaseError as error:
        reject = Reject.from_error(item.case_id, "read", error)
        return {**row, "case": b"", "predicted": b"", "reject": json.dumps(asdict(reject))}
    return {**row, "case": pickle.dumps(case, protocol=5), "predicted": b"", "reject": ""}


def score_and_write(row: dict[str, Any], out: str, nifti: bool, counter: Any) -> dict[str, Any]:
    """Ray step: write the mask of a case, score it against its reference, and write its part last."""
    item = Item(**json.loads(row["item"]))
    reject = Reject(**json.loads(row["reject"])) if row["reject"] else None
    try:
        if not reject:
            try:
                attempts.begin(counter, item.case_id, "scoring")
                case: Case = pickle.loads(row["case"])
                write_case(out, item, case, pickle.loads(row["predicted"]), nifti=nifti)
            except CaseError as error:
                reject = Reject.from_error(item.case_id, "predict", error)
        if reject:
            write_part(out, Part(case_id=item.case_id, source_bytes=item.source_bytes, reject=reject))
    except StorageError as error:
        return {"case_id": item.case_id, "failure": str(error)}
    return {"case_id": item.case_id, "failure": ""}


def write_case(out: str, item: Item, case: Case, predicted: Labels, *, nifti: bool) -> None:
    """Write the mask of a case, as NIfTI too where asked, and its part with the scores."""
    write_masks(out, case, predicted)
    if nifti:
        content = nifti_bytes(case.uncropped(predicted), case.grid, case.layout)
        storage.write_bytes(storage.join(out, "nifti", f"{case.case_id}.nii.gz"), content)
    write_part(out, score_case(item, case, predicted))


def score_case(item: Item, case: Case, predicted: Labels) -> Part:
    """The metric rows of a case; none where it has no reference."""
    rows: dict[str, Any] = {}
    if case.labels is not None:
        reference, first_slice = in_source_axes(case, case.labels)
        rows = tables.score_rows(
            case_id=case.case_id,
            patient_id=item.patient_id,
            split=item.split,
            reference=reference,
            predicted=in_source_axes(case, predicted)[0],
            spacing_mm=case.grid.slice_spacing_mm,
            n_outside=case.n_outside,
            first_slice=first_slice,
        )
    return Part(case_id=item.case_id, source_bytes=item.source_bytes, **rows)
