"""Provenance of results, as a section: command, versions, hash of the data, methods and works to cite."""

import dataclasses
import hashlib
import os
import platform
import shlex
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from brats.config import CLASSIC_UNET, LOSS_CONVENTIONS, EvaluateConfig, PredictConfig, TrainConfig
from brats.fields import option_name
from brats.presets import PRESETS
from brats.report.citations import CITATIONS
from brats.report.findings import Findings
from brats.report.html import code, facts, paragraph, section
from brats.score.summary import N_RESAMPLES
from brats.score.surface import HD95_ONE_EMPTY_MM

PACKAGES = ("brats-ray", "ray", "torch", "segmentation-models-pytorch", "numpy", "pyarrow")
JOBS: Mapping[str, type] = {"train": TrainConfig, "predict": PredictConfig, "evaluate": EvaluateConfig}
LEFT_OUT = {"out", "debug"}  # of the command: the folder comes first, and tracebacks change nothing


def provenance_section(found: Findings, card: Mapping[str, Any]) -> str:
    """The command, versions, a hash of the data, methods and citations.

    card: the content of `model.json`; empty where there is no model beside the results
    """
    words = methods(found, card)
    return section(
        "methods",
        "Methods and provenance",
        "<h3>Methods, to paste</h3>" if words else "",
        code(words) if words else "",
        "<h3>Citations, BibTeX</h3>",
        code("\n\n".join(CITATIONS[name] for name in cited(found))),
        "<h3>The command</h3>" if command(found) else "",
        code(command(found)) if command(found) else "",
        paragraph("Rebuilt from config.json: options that differ from the defaults of the job and its preset."),
        "<h3>Versions and data</h3>",
        facts({**versions(card), **data_facts(found)}),
    )


def command(found: Findings) -> str:
    """The command that gives these results again; "" where no configuration says it."""
    config_class = JOBS.get(found.job)
    if config_class is None:
        return ""
    defaults = _defaults(found)
    words = ["python", f"jobs/{found.job}.py", "--out", str(found.config.get("out", found.folder))]
    for item in dataclasses.fields(config_class):
        value = found.config.get(item.name)
        if (
            item.name not in LEFT_OUT
            and item.init
            and value is not None
            and value != _json(defaults.get(item.name))
        ):
            words += _option(item.name, value)
    return shlex.join(words)


def _defaults(found: Findings) -> dict[str, Any]:
    """The values that the job would have without any option but those that name its preset and its folders."""
    if found.job == "train":
        preset = str(found.config.get("preset", "brats"))
        settings = PRESETS[preset].settings if preset in PRESETS else {}
        return dataclasses.asdict(TrainConfig(out=found.folder, **settings))
    return {item.name: item.default for item in dataclasses.fields(JOBS[found.job])}


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [option_name(name if value else f"no_{name}")]
    values = value if isinstance(value, list) else [value]
    return [option_name(name), *map(str, values)]


def versions(card: Mapping[str, Any]) -> dict[str, str]:
    """The packages that the model was trained with, and those that made this page."""
    trained = card.get("versions", {})
    found = {f"trained with {name}": value for name, value in trained.items()}
    installed = {f"page made with {name}": _installed(name) for name in PACKAGES}
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    return {**found, **installed, "page made with Python": platform.python_version(), "page made on": machine}


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def data_facts(found: Findings) -> dict[str, str]:
    """Where the cases lie, how many there are, and one hash of them all."""
    known = {"data": found.data or "not recorded"}
    if found.split:
        known["cases of the split"] = str(len(found.split))
        known["SHA-256 of case ids, splits and source hashes"] = data_hash(found)
    return known


def data_hash(found: Findings) -> str:
    """SHA-256 over the cases of a run: a line each, in the order of the ids, of case id, split and source hash."""
    rows = sorted((row["case_id"], str(row["split"]), str(row["source_hash"])) for row in found.split)
    return hashlib.sha256("\n".join("\t".join(row) for row in rows).encode()).hexdigest()


def methods(found: Findings, card: Mapping[str, Any]) -> str:
    """What was done, in the words of a methods section; "" where nothing was trained or scored here."""
    trained = _training(found) if found.job == "train" and found.histories else ()
    return " ".join([*trained, *_decoding(card), *(_scoring() if len(found.case_table) else ())])


def _training(found: Findings) -> Iterator[str]:
    config = found.config
    encoder = config.get("encoder")
    network = (
        "the U-Net of Ronneberger et al. (2015) with padded convolutions"
        if encoder == CLASSIC_UNET
        else f"a 2-D U-Net with the encoder {encoder} (segmentation-models-pytorch), "
        + (f"pretrained ({config['encoder_weights']})" if config.get("encoder_weights") else "from random weights")
    )
    yield (
        f"We trained {network} on {config.get('plane', 'axial')} slices of "
        f"{', '.join(name.upper() for name in config.get('modalities', ()))}. "
        "Volumes were cropped to the brain; each modality was normalised per case to mean 0 and standard deviation "
        "1 over its non-background voxels."
    )
    if config.get("triplanar"):
        yield "Networks for axial, coronal and sagittal slices were trained alike and their probabilities averaged."
    if config.get("seeds", 1) > 1:
        yield f"The probabilities of {config['seeds']} networks with different seeds were averaged."
    yield _cohort(found)
    yield (
        f"The loss was {LOSS_CONVENTIONS.get(config.get('loss', 'bce-dice'), config.get('loss'))}; the optimiser "
        f"{'AdamW' if config.get('optimiser') == 'adamw' else 'Adam'} with a peak learning rate of "
        f"{config.get('learning_rate'):g}, {config.get('warmup_steps')} warm-up steps and cosine decay, weight "
        f"decay {config.get('weight_decay'):g} and batches of {config.get('batch_size')} slices. "
        f"Augmentation: {config.get('augmentation')}."
    )
    yield "The weights of the epoch with the best mean validation Dice of the regions were kept."


def _cohort(found: Findings) -> str:
    """How many patients were trained on, validated on and tested, in a sentence."""
    patients: dict[str, set[str]] = {}
    for row in found.split:
        patients.setdefault(str(row["split"]), set()).add(str(row["patient_id"]))
    if found.config.get("cross_validation"):
        n_patients = len({str(row["patient_id"]) for row in found.split})
        return f"{n_patients} patients were cross-validated in {found.config['cross_validation']} folds by patient."
    counts = ", ".join(f"{name} {len(patients[name])}" for name in ("train", "val", "test") if name in patients)
    return f"Patients, not slices, were split, stratified by tumour volume and presence of ET ({counts})."


def _decoding(card: Mapping[str, Any]) -> Iterator[str]:
    decoding = card.get("decoding", {})
    if decoding:
        numbers = ", ".join(f"{value:g}" for value in decoding.get("thresholds", ()))
        origin = "chosen on the validation cases" if decoding.get("n_tuned_on") else "by default"
        yield f"Probabilities became label maps with thresholds {numbers} ({origin})."


def _scoring() -> Iterator[str]:
    yield (
        "Every score is of the whole 3-D volume at full resolution: Dice (both masks empty 1, one empty 0) and the "
        "95th percentile of the surface distances weighted by area (one mask empty "
        f"{HD95_ONE_EMPTY_MM} mm). Intervals are 95 % percentile intervals of {N_RESAMPLES} bootstrap resamples of "
        "patients."
    )


def cited(found: Findings) -> list[str]:
    """The works to cite, by their keys."""
    works = ["menze2015", "bakas2017", "baid2021", "ronneberger2015"]
    if found.job == "train" and found.config.get("encoder") != CLASSIC_UNET:
        works.append("iakubovskii2019")
        works += ["tan2019"] if "efficientnet" in str(found.config.get("encoder")) else []
    works += ["paszke2019", "moritz2018"]
    if found.scores:
        works.append("nikolov2021")
        works += ["mehta2022"] if len(found.scores.table("uncertainty")) else []
    return works
