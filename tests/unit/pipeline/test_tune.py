"""Tuning a model: on the validation cases of its run alone, and nothing half done is left behind."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brats import storage
from brats.data.dataset import PREPARED_CASES, case_row
from brats.data.items import Item
from brats.data.slices import open_slices
from brats.model.decoding import Decoding
from brats.model.tuning import UNTUNED, TuningCase, tuning_case
from brats.pipeline import tune as module
from brats.pipeline.tune import segment_cases, tune
from tests.support.bundles import MODEL_CARD
from tests.support.prepared import CONFIG, segmenter_of, tiny_case, undecided_network, write_prepared

pytestmark = pytest.mark.usefixtures("one_thread")
SPLITS = {"a": "train", "b": "val", "c": "val", "d": "test"}
SPLIT = [{"case_id": case_id, "split": split} for case_id, split in SPLITS.items()]


@pytest.fixture
def prepared(tmp_path: Path) -> str:
    """A prepared dataset of these cases and one that joined it later."""
    cases = [tiny_case(case_id, seed=seed) for seed, case_id in enumerate([*SPLITS, "later"])]
    paths = write_prepared(str(tmp_path / "prepared"), cases)
    rows = [{**case_row(open_slices(path).description), "sources": []} for path in paths]
    table = PREPARED_CASES.table(rows)
    storage.write_table(str(tmp_path / "prepared" / "cases.parquet"), PREPARED_CASES, table)
    return str(tmp_path / "prepared")


def test_a_model_is_tuned_on_the_validation_cases_and_lies_in_the_run_no_longer_than_that(
    prepared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def stand_in(items: Sequence[Item], _: Any, bundle: str, __: Any) -> list[TuningCase]:
        assert (Path(bundle) / "model.json").exists()
        seen.extend(item.case_id for item in items)
        segmenter = segmenter_of(undecided_network().eval())
        return [tuning_case(segmenter, tiny_case(item.case_id), 10) for item in items]

    monkeypatch.setattr(module, "segment_cases", stand_in)
    config = replace(CONFIG, out=str(tmp_path / "run"))
    found = tune(config, prepared, SPLIT, undecided_network().state_dict(), MODEL_CARD)
    assert seen == ["b", "c"]
    assert found.n_tuned_on == 2
    assert not (tmp_path / "run" / "tuning").exists()
    assert capsys.readouterr().out == f"tune     {found}\n"


def test_without_a_validation_case_in_the_data_one_line_says_that_defaults_are_taken(
    prepared: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment_cases([], CONFIG, "bundle", MODEL_CARD) == []
    assert capsys.readouterr().out == "tune     no validation case in the data: defaults\n"
    config = replace(CONFIG, out=str(tmp_path / "run"))
    trained = [row for row in SPLIT if row["split"] == "train"]
    found = tune(config, prepared, trained, undecided_network().state_dict(), MODEL_CARD)
    assert found == UNTUNED != Decoding()
