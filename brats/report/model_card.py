"""The card of a model in Markdown: what it was trained on, how well it does, what it is for and what it is not."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from brats import storage
from brats.config import TrainConfig
from brats.data.cases import count_codings
from brats.data.run_split import SplitRow, read_split, split_path, test_dir
from brats.labels import REGIONS, tissue_name
from brats.model.bundle import ModelCard, read_card
from brats.model.decoding import mean_decoding
from brats.model.ensemble import bundles_of
from brats.model.hardware import hardware_of
from brats.report.findings import networks_in
from brats.report.markdown import interval, number, table_of
from brats.saved_config import config_path
from brats.score.summary import SUMMARY, TINY_WT_ML
from brats.score.tables import metrics_path

NOT_FOR_CLINICAL_USE = (
    "**Not for clinical use.** This is a research model and no medical device: no diagnosis and no treatment may "
    "rest on its masks."
)
SUBSETS = {"all": "all cases", "present": "cases with the region"}
SETTINGS = (
    *("epochs", "steps", "minutes", "batch_size", "learning_rate", "optimiser", "loss", "augmentation"),
    *("encoder_weights", "ema", "seed"),
)
"""Options of the training that the card names where they have a value."""


def model_card(bundle: str, run: str) -> str:
    """The card of a bundle, with a newline at its end; the same files give the same text.

    run: of which the bundle is; the bundle itself, or another folder, where its run is not at hand

    Raises BundleError for a bundle that cannot be used.
    """
    cards = [read_card(folder) for folder in bundles_of(bundle)]
    blocks = [
        *_heading(cards),
        *_inputs_and_outputs(cards),
        *_data(run, cards),
        *_training(run),
        *_scores(run),
        *_use(cards),
    ]
    return "\n\n".join(blocks) + "\n"


def _heading(cards: Sequence[ModelCard]) -> list[str]:
    card = cards[0]
    encoders = ", ".join(dict.fromkeys(card.encoder for card in cards))
    what = "A 2-D U-Net" if len(cards) == 1 else f"The mean of {len(cards)} 2-D U-Nets"
    regions = ", ".join(f"{region} ({REGIONS[region].full_name})" for region in card.regions)
    versions = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    return [
        "# Model card",
        f"{what} (encoder {encoders}) that outlines {regions} in MRI of brain tumours, slice by slice. Trained "
        f"with {versions}.",
        NOT_FOR_CLINICAL_USE,
    ]


def _inputs_and_outputs(cards: Sequence[ModelCard]) -> list[str]:
    rows = []
    for card in cards:
        inputs = card.inputs
        extra = ", ".join(inputs.extra) or "none"
        rows.append((", ".join(inputs.modalities), inputs.plane, str(inputs.context), extra, str(inputs.divisor)))
    header = ("modalities", "plane", "neighbours on either side", "computed channels", "height and width divide by")
    decoding = mean_decoding([card.decoding for card in cards])
    return [
        "## Input and output",
        "Skull-stripped images of one visit, aligned with each other. Each modality is normalised by its own case: "
        f"{cards[0].normalisation}.",
        table_of(header, dict.fromkeys(rows)),
        f"Output: the probability of {', '.join(cards[0].regions)} in each voxel. Masks: {decoding}. They have "
        f"{', then '.join(f'{tissue_name(region.label)} where {name}' for name, region in REGIONS.items())}.",
    ]


def _data(run: str, cards: Sequence[ModelCard]) -> list[str]:
    if not storage.exists(split_path(run)):
        known = {case_id: case for card in cards for case_id, case in card.trained_on.items()}
        patients = len({case["patient_id"] for case in known.values()})
        return [
            "## Data",
            f"Trained or chosen on {len(known)} cases of {patients} patients, which `model.json` lists.",
        ]
    rows = read_split(run)
    table = [_split_row(name, [row for row in rows if row["split"] == name]) for name in ("train", "val", "test")]
    header = ("split", "patients", "cases", "with tumour", "with ET")
    return [
        "## Data",
        f"BraTS cases with a reference, in the coding {count_codings(row['coding'] for row in rows)}. Patients, "
        "not cases or slices, were split; the test split took no part in training or in choosing anything. "
        "`split.parquet` lists the cases.",
        table_of(header, table),
    ]


def _split_row(name: str, rows: Sequence[SplitRow]) -> tuple[str, ...]:
    patients = {row["patient_id"] for row in rows}
    with_tumour, with_et = (sum(any(row[f"{what}_per_slice"] or ()) for row in rows) for what in ("tumour", "et"))
    return (name, *map(str, (len(patients), len(rows), with_tumour, with_et)))


def _training(run: str) -> list[str]:
    try:
        saved = storage.read_json(config_path(run))
    except FileNotFoundError:
        return []
    values: dict[str, Any] = {**saved.get("execution", {}), **saved.get("result", {})}
    defaults = {name: field.default for name, field in TrainConfig.__dataclass_fields__.items()}
    named = {name: values.get(name, defaults[name]) for name in SETTINGS}
    text = "; ".join(f"{name} {value}" for name, value in named.items() if value is not None)
    blocks = ["## Training", f"{text}. `config.json` has all options, `history.parquet` the epochs."]
    return [*blocks, *(f"Hardware: {words}." for words in hardware_of(networks_in(run).values()))]


def _scores(run: str) -> list[str]:
    """The tables of the test split, or of a cross-validation; none where nothing was scored."""
    found = [
        (folder, words)
        for folder, words in (
            (run, "all patients, each by a model that has not seen it (cross-validation)"),
            (test_dir(run), "the test split"),
        )
        if storage.exists(metrics_path(folder, "summary"))
    ]
    if not found:
        return ["## Scores", "None: no test split was predicted and scored."]
    folder, words = found[0]
    summary = storage.read_table(metrics_path(folder, "summary"), SUMMARY)
    rows = _score_rows(summary)
    if not rows:
        return ["## Scores", "None: no case of the test split has a reference."]
    header = ("region", "over", "n", "Dice [95 % interval]", "median Dice", "HD95 mm", "sensitivity", "precision")
    return [
        "## Scores",
        f"Of {words}: means over whole cases in 3-D, with bootstrap intervals over patients. Empty masks count as "
        "in BraTS: both empty is a Dice of 1, one empty 0.",
        table_of(header, rows),
    ]


def _score_rows(summary: pa.Table) -> list[tuple[str, ...]]:
    found = {
        (row["region"], row["subset"], row["metric"]): row
        for row in summary.to_pylist()
        if row["convention"] == "brats" and row["n"]
    }
    rows = []
    for region in REGIONS:
        for subset, words in SUBSETS.items():
            if dice := found.get((region, subset, "dice")):
                others = [found.get((region, subset, name), {}) for name in ("hd95_mm", "sensitivity", "precision")]
                means = [number(row.get("mean"), digits) for row, digits in zip(others, (1, 3, 3), strict=True)]
                rows.append((region, words, str(dice["n"]), interval(dice), number(dice["median"]), *means))
    return rows


def _use(cards: Sequence[ModelCard]) -> list[str]:
    modalities = ", ".join(dict.fromkeys(name for card in cards for name in card.inputs.modalities))
    return [
        "## Intended use",
        "Research on segmentation: a baseline to compare with, masks to correct by hand, volumes over groups of "
        "patients. Every mask that matters should be looked at by someone who can tell.",
        "## Limits",
        "\n".join(
            (
                f"- It needs {modalities}, preprocessed as BraTS does: aligned, about 1 mm, skull removed.",
                "- Other scanners, protocols, tumours, ages and states of treatment than those of its data are "
                "untested, and it gives no sign of its own that a case is unlike them.",
                f"- Small tumours are the hardest: below {TINY_WT_ML:g} ml one voxel more all round costs much.",
                "- It sees slices, not volumes, so that masks may be rough across slices.",
                "- Probabilities are not calibrated for a single patient.",
            )
        ),
    ]
