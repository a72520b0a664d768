"""The course of a run: its figures at a glance, its learning curves, and how many cases and slices went where."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from brats.labels import REGIONS
from brats.model.hardware import NOT_RECORDED
from brats.model.history import dice_column, train_dice_column
from brats.report.charts import Series, chart
from brats.report.findings import Findings
from brats.report.html import DASH, counted, facts, number, paragraph, section, text
from brats.report.network import draw_flow
from brats.report.overlay import MODALITY_NAMES
from brats.report.results import mean_and_interval

TRAINING_COLOUR, VALIDATION_COLOUR = "#000000", "#0072B2"  # as in brats.report.figures
SPLITS = ("train", "val", "test")


def glance_section(found: Findings, card: Mapping[str, Any]) -> str:
    """Scores in large figures, then what was run, on what, and what it took."""
    return section("glance", "At a glance", _tiles(found), facts(dict(_facts(found, card))))


def _tiles(found: Findings) -> str:
    """The mean Dice of each region, with its interval."""
    summary = found.scores.table("summary") if found.scores else pd.DataFrame()
    if summary.empty:
        return paragraph("Nothing is scored here: no case with a reference was predicted.", "note")
    tiles = []
    chosen = summary[(summary["convention"] == "brats") & (summary["subset"] == "all") & (summary["n"] > 0)]
    for row in chosen[chosen["metric"] == "dice"].to_dict("records"):
        mean, _, interval = mean_and_interval(row).partition(" ")
        region = REGIONS[row["region"]]
        tiles.append(
            f'<li style="border-color:{region.colour}"><b>{text(mean)}</b> <span>{text(interval)}</span><br>'
            f"Dice {text(row['region'])}, {text(region.full_name)}, n = {int(row['n'])}</li>"
        )
    return f'<ul class="tiles">{"".join(tiles)}</ul>'


def _facts(found: Findings, card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    config = found.config
    yield "folder", found.folder
    yield "job", " ".join(filter(None, [found.job or "not recorded", _preset(config)]))
    if found.data:
        yield "data", found.data
    if found.split:
        yield "cases", _counted(found.split)
    if config.get("encoder"):
        decoder = ", ".join(map(str, config.get("decoder_channels", ())))
        modalities = ", ".join(MODALITY_NAMES.get(name, name) for name in config.get("modalities", ()))
        yield "network", f"U-Net, {config['encoder']}, decoder {decoder}"
        yield "input", f"{config.get('plane', 'axial')} slices of {modalities}"
        yield "loss, optimiser", f"{config.get('loss')}, {config.get('optimiser')}"
    if found.histories:
        yield from _cost(found.histories)
        yield "hardware", " | ".join(found.hardware) or NOT_RECORDED
    if config:
        chosen = (f"{name} {config[name]}" for name in ("device", "precision", "workers") if name in config)
        yield "options", ", ".join(chosen) or DASH
    if card.get("epoch"):
        yield "model", f"epoch {card['epoch']}, validation Dice {number(card.get('val_dice'))}"
    yield "rejected", counted(len(found.rejects), "case")
    yield "implausible", counted(len({warned.case_id for warned in found.warnings}), "case")


def _preset(config: Mapping[str, Any]) -> str:
    return f"(preset {config['preset']})" if config.get("preset") else ""


def _counted(rows: Sequence[Mapping[str, Any]]) -> str:
    """Cases by split, with their patients: "22 of 20 patients: train 14, val 4, test 4"."""
    counts = Counter(str(row["split"]) for row in rows)
    each = ", ".join(f"{name} {counts[name]}" for name in SPLITS if counts[name])
    return f"{len(rows)} of {counted(len({row['patient_id'] for row in rows}), 'patient')}: {each}"


def _cost(histories: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, str]]:
    seconds = sum(float(history["elapsed_s"].sum()) for history in histories.values())
    n_epochs = sum(len(history) for history in histories.values())
    of_networks = f" of {len(histories)} networks" if len(histories) > 1 else ""
    yield "training", f"{counted(n_epochs, 'epoch')}{of_networks} in {seconds / 60:.1f} min"
    slices = sum(int(history["n_slices"].sum()) for history in histories.values())
    rate = max(float(history["slices_per_s"].max()) for history in histories.values())
    yield "throughput", f"{slices:,} slices, up to {rate:.0f} per second"
    peak = max(float(history["peak_memory_mb"].max()) for history in histories.values())
    yield "peak memory", f"{peak:,.0f} MiB of the GPU, or of the process on CPUs"


def curves_section(histories: Mapping[str, pd.DataFrame]) -> str:
    """Loss, Dice, accuracy and learning rate over the epochs of each network."""
    if not histories:
        return ""
    blocks = []
    for name, history in histories.items():
        charts = f'<div class="charts">{"".join(_curves(history))}</div>'
        titled = f"<details open><summary>{text(name)}</summary>{charts}</details>" if name else charts
        blocks.append(titled)
    note = paragraph(
        "Training figures are over augmented slices as they were predicted while the network learnt; validation "
        "figures are 3-D, of whole cases. The dashed upright line is the epoch with the best validation Dice."
    )
    return section("curves", "Learning curves", *blocks, note)


def _curves(history: pd.DataFrame) -> Iterator[str]:
    best = _best_epoch(history)
    of_loss = [_training(history, "train_loss"), _validation(history, "val_loss")]
    yield chart("Loss", of_loss, x_label="epoch", whole_x=True, y_label="loss", mark_x=best)
    yield _dice_chart("Dice, validation cases", history, dice_column, best)
    yield _dice_chart("Dice, training slices", history, train_dice_column, best)
    of_accuracy = [_training(history, "train_accuracy"), _validation(history, "val_accuracy")]
    yield chart(
        "Accuracy of voxels, background included",
        of_accuracy,
        x_label="epoch",
        whole_x=True,
        y_label="accuracy",
        y_limits=_upper_limits(of_accuracy),
        mark_x=best,
    )
    rate = [_series(history, "learning_rate", "learning rate", TRAINING_COLOUR, "o")]
    yield chart("Learning rate", rate, x_label="epoch", whole_x=True, y_label="at the last step")


def _best_epoch(history: pd.DataFrame) -> float | None:
    scored = history[_column(history, "val_dice").notna()]
    return float(scored.iloc[scored["val_dice"].argmax()]["epoch"]) if len(scored) else None


def _dice_chart(title: str, history: pd.DataFrame, column: Any, best: float | None) -> str:
    series = [
        _series(history, column(name), f"{name} {region.full_name}", region.colour, region.marker)
        for name, region in REGIONS.items()
        if _column(history, column(name)).notna().any()
    ]
    return chart(title, series, x_label="epoch", whole_x=True, y_label="mean Dice", y_limits=(0, 1.02), mark_x=best)


def _upper_limits(series: Sequence[Series]) -> tuple[float, float]:
    """Limits up to 1 that values near 1 fill: the background alone makes an accuracy of .98."""
    lowest = min((y for one in series for _, y, _ in one.points()), default=0.0)
    return max(0.0, 1 - 1.3 * (1 - lowest) - 1e-3), 1.0


def _training(history: pd.DataFrame, column: str) -> Series:
    return _series(history, column, "training", TRAINING_COLOUR, "o")


def _validation(history: pd.DataFrame, column: str) -> Series:
    return _series(history, column, "validation", VALIDATION_COLOUR, "D", dashed=True)


def _series(
    history: pd.DataFrame, column: str, name: str, colour: str, marker: str, *, dashed: bool = False
) -> Series:
    """A column over the epochs; epochs that were not validated, and columns of later versions, have no points."""
    rows = history[_column(history, column).notna()]
    values = _column(rows, column).tolist()
    return Series(name=name, x=rows["epoch"].tolist(), y=values, colour=colour, marker=marker, dashed=dashed)


def _column(history: pd.DataFrame, column: str) -> "pd.Series[float]":
    missing = pd.Series(float("nan"), history.index)
    return history.get(column, missing)


def flow_section(found: Findings, n_prepared_rejects: int, drawing: str) -> str:
    """How many cases and slices went through each stage, and the network.

    n_prepared_rejects: cases that the prepared dataset has left out
    drawing:            of the network, as HTML; "" where it is not known
    """
    steps = draw_flow(list(_steps(found, n_prepared_rejects)))
    network = f"<h3>Network</h3>{drawing}" if drawing else ""
    return section("flow", "Data flow and network", steps, network)


def _steps(found: Findings, n_prepared_rejects: int) -> Iterator[tuple[str, str]]:
    if found.split:
        n_slices = sum(len(row["tumour_per_slice"] or ()) for row in found.split)
        yield "prepare", f"{counted(len(found.split), 'case')}, {n_slices:,} slices; {n_prepared_rejects} rejected"
        yield "split", _counted(found.split)
    for history in list(found.histories.values())[:1]:
        epochs, steps = counted(len(history), "epoch"), int(_column(history, "n_steps").sum())
        networks = f", one of {len(found.histories)} networks" if len(found.histories) > 1 else ""
        yield (
            "train",
            f"{epochs}, {int(history['n_slices'].sum()):,} slices, {counted(steps, 'step')}{networks}",
        )
    if found.predictions or found.rejects:
        yield "predict", f"{counted(len(found.predictions), 'mask')}; {len(found.rejects)} rejected"
    scored = counted(found.case_table["case_id"].nunique(), "case")
    yield "score", f"{scored} with a reference" if len(found.case_table) else "nothing yet"
