"""The model card: figures from the tables of the run, and what the model is not for."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from brats import storage
from brats.config import TrainConfig
from brats.data import run_split
from brats.data.run_split import SPLIT, freeze_split
from brats.model.bundle import bundle_dir
from brats.model.ensemble import save_ensemble
from brats.model.hardware import record_start
from brats.report.model_card import NOT_FOR_CLINICAL_USE, model_card
from brats.saved_config import SavedConfig
from brats.score.summary import SUMMARY
from brats.score.tables import metrics_path
from tests.support.bundles import save_undecided_bundle
from tests.support.prepared import CONFIG
from tests.support.reports import write_history_of
from tests.unit.model.test_hardware import CPU, ON_CPU, VERSIONS

predictions_of = run_split.test_dir  # under its own name pytest would take it for a test


def cells(card: str, first: str) -> list[str]:
    """The cells of the rows of a table that begin with this one."""
    rows = [line.strip("| ").split("|") for line in card.splitlines() if line.startswith(f"| {first}")]
    return [cell.strip() for row in rows for cell in row]


def split_row(case_id: str, split: str, patient_id: str, et: int) -> dict[str, Any]:
    return {
        **dict.fromkeys(SPLIT.schema.names),
        "case_id": case_id,
        "patient_id": patient_id,
        "split": split,
        "coding": "brats2018",
        "tumour_per_slice": [0, 5],
        "et_per_slice": [0, et],
    }


def write_run(run: Path) -> str:
    """A run with its split and with the scores of one region."""
    save_undecided_bundle(Path(bundle_dir(str(run))), trained_on=("a", "b"))
    rows = [split_row("a", "train", "p", 3), split_row("b", "train", "p", 0), split_row("c", "test", "q", 1)]
    freeze_split(str(run), rows, "prepared")
    config: TrainConfig = replace(CONFIG, out=str(run), epochs=7)
    SavedConfig.of("train", config).write(str(run))
    score = {"region": "WT", "convention": "brats", "subset": "all", "n": 1, "mean": 0.5, "median": 0.25}
    summary: pa.Table = SUMMARY.table(
        [
            {**score, "metric": "dice", "ci95_low": 0.4, "ci95_high": 0.6},
            {**score, "metric": "hd95_mm", "mean": 12.34},
            {**score, "metric": "dice", "convention": "notebook", "mean": 0.987},
        ]
    )
    storage.write_table(metrics_path(predictions_of(str(run)), "summary"), SUMMARY, summary, config=asdict(config))
    return model_card(bundle_dir(str(run)), str(run))


def test_splits_are_counted_by_patients_cases_tumour_and_et(tmp_path: Path) -> None:
    card = write_run(tmp_path)
    assert cells(card, "train") == ["train", "1", "2", "2", "1"]
    assert cells(card, "val") == ["val", "0", "0", "0", "0"]
    assert cells(card, "test ") == ["test", "1", "1", "1", "1"]


def test_scores_are_those_of_the_summary_with_their_interval(tmp_path: Path) -> None:
    card = write_run(tmp_path)
    assert cells(card, "WT") == ["WT", "all cases", "1", "0.500 [0.400, 0.600]", "0.250", "12.3", "-", "-"]
    assert "0.987" not in card


def test_the_training_is_described_by_its_options(tmp_path: Path) -> None:
    card = write_run(tmp_path)
    assert "epochs 7; batch_size 8;" in card


def test_the_training_names_the_hardware_of_a_run_of_one_network(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_history_of(tmp_path)
    assert "Hardware:" not in card_of(tmp_path)
    record_start(str(tmp_path), 1, [CPU])
    assert f"\nHardware: 1 worker on 1 machine, {ON_CPU}; {VERSIONS}.\n" in card_of(tmp_path)


def test_the_training_names_the_hardware_of_all_networks_below_a_run(tmp_path: Path) -> None:
    write_run(tmp_path)
    for name, workers in (("fold_0/seed_0", [CPU]), ("fold_0/seed_1", [CPU]), ("fold_1/seed_0", [CPU, CPU])):
        write_history_of(tmp_path / name)
        record_start(str(tmp_path / name), 1, workers)
    lines = [line for line in card_of(tmp_path).splitlines() if line.startswith("Hardware:")]
    assert [line.split()[1] for line in lines] == ["1", "2"]


def card_of(run: Path) -> str:
    return model_card(bundle_dir(str(run)), str(run))


def test_the_card_says_that_it_is_not_for_clinical_use(tmp_path: Path) -> None:
    assert f"\n{NOT_FOR_CLINICAL_USE}\n" in write_run(tmp_path)


def test_the_card_says_which_of_the_three_tissues_masks_have_where(tmp_path: Path) -> None:
    assert "They have ED where WT, then NCR where TC, then ET where ET.\n" in write_run(tmp_path)


def test_a_bundle_on_its_own_counts_what_it_knows(tmp_path: Path) -> None:
    card = model_card(str(save_undecided_bundle(tmp_path, trained_on=("a", "b"))), str(tmp_path))
    assert "Trained or chosen on 2 cases of 2 patients" in card
    assert "## Scores\n\nNone: no test split was predicted and scored." in card
    assert "## Training" not in card


def test_an_ensemble_is_described_as_the_mean_of_its_networks(tmp_path: Path) -> None:
    names = {name: str(save_undecided_bundle(tmp_path / name)) for name in "ab"}
    save_ensemble(str(tmp_path / "model"), names)
    card = model_card(str(tmp_path / "model"), str(tmp_path))
    assert "The mean of 2 2-D U-Nets (encoder tu-test_resnet)" in card
    assert len(cells(card, "flair")) == 5  # both see the same
