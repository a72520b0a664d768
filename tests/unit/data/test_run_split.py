"""The split of a run: frozen at its first start, on a fold where one is asked for, and held against its dataset."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from brats import storage
from brats.config import TrainConfig
from brats.data import run_split
from brats.data.dataset import PREPARED_CASES, cases_path
from brats.data.planes import COUNT_COLUMNS
from brats.data.run_split import (
    SplitRow,
    check_same_cases,
    choose_split,
    freeze_split,
    n_with_tumour,
    read_split,
    split_path,
)
from brats.errors import ConfigError

CONFIG = TrainConfig(out="run", modalities=("t1", "flair"))
SPLITS = {"a": ("train", 0), "b": ("train", 1), "c": ("val", 0), "d": ("test", None), "e": ("val", 1)}


def case_row(case_id: str, split: str | None, fold: int | None, **changes: Any) -> dict[str, Any]:
    row = {
        "case_id": case_id,
        "patient_id": f"patient of {case_id}",
        "split": split,
        "fold": fold,
        "modalities": ["flair", "t1"],
        "coding": "brats2023",
        "height": 5,
        "width": 4,
        **{column: [0, 3, 1] for column in COUNT_COLUMNS},
        "voxel_hash": f"hash of {case_id}",
        "source_hash": f"files of {case_id}",
    }
    return {**row, **changes}


def write_dataset(
    prepared: Path, splits: Mapping[str, tuple[str | None, int | None]] = SPLITS, **changes: Any
) -> str:
    """A table of cases with these splits and folds; every row changed alike."""
    rows = [case_row(case_id, split, fold, **changes) for case_id, (split, fold) in splits.items()]
    storage.write_table(cases_path(str(prepared)), PREPARED_CASES, PREPARED_CASES.table(rows))
    return str(prepared)


def freeze(tmp_path: Path, prepared: str, config: TrainConfig = CONFIG) -> list[SplitRow]:
    run = str(tmp_path / "run")
    split = choose_split(config, run, prepared)
    freeze_split(run, split, prepared)
    return split


def splits_of(rows: list[SplitRow]) -> dict[str, str]:
    return {row["case_id"]: row["split"] for row in rows}


# Frozen


def test_first_start_writes_the_labelled_cases_with_their_splits(tmp_path: Path) -> None:
    prepared = write_dataset(tmp_path / "prepared", {**SPLITS, "unlabelled": (None, None)})
    rows = freeze(tmp_path, prepared)
    assert splits_of(rows) == {"a": "train", "b": "train", "c": "val", "d": "test", "e": "val"}
    assert rows == read_split(str(tmp_path / "run"))
    assert rows[0] == {name: value for name, value in case_row("a", "train", 0).items() if name != "modalities"}


def test_a_run_that_was_not_started_has_no_split(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_split(str(tmp_path))


def test_cases_that_join_the_dataset_do_not_join_the_run(tmp_path: Path) -> None:
    before = freeze(tmp_path, write_dataset(tmp_path / "prepared"))
    grown = write_dataset(tmp_path / "prepared", {"new": ("train", 0), **SPLITS, "newer": ("val", 1)})
    assert freeze(tmp_path, grown) == before


def test_cases_that_are_split_anew_keep_their_split_in_the_run(tmp_path: Path) -> None:
    before = freeze(tmp_path, write_dataset(tmp_path / "prepared"))
    moved = write_dataset(tmp_path / "prepared", {**SPLITS, "a": ("test", None), "d": ("train", 1)})
    assert freeze(tmp_path, moved) == before


# Folds


@pytest.mark.parametrize(("fold", "validated"), [(0, {"a", "c"}), (1, {"b", "e"})])
def test_a_fold_validates_its_own_cases_trains_on_the_others_and_leaves_the_test_split(
    tmp_path: Path, fold: int, validated: set[str]
) -> None:
    config = TrainConfig(out="run", modalities=CONFIG.modalities, fold=fold)
    splits = splits_of(freeze(tmp_path, write_dataset(tmp_path / "prepared"), config))
    assert {case_id for case_id, split in splits.items() if split == "val"} == validated
    assert {case_id for case_id, split in splits.items() if split == "train"} == {"a", "b", "c", "e"} - validated
    assert splits["d"] == "test"


def test_unknown_fold_names_those_there_are_and_freezes_nothing(tmp_path: Path) -> None:
    config = TrainConfig(out="run", modalities=CONFIG.modalities, fold=9)
    with pytest.raises(ConfigError, match=r"^--fold: 9 is not one of the folds \[0, 1\] of .*prepared$"):
        freeze(tmp_path, write_dataset(tmp_path / "prepared"), config)
    assert not storage.exists(split_path(str(tmp_path / "run")))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"a": ("train", 0), "b": ("train", 1)}, "its 2 labelled cases leave none for the val split; add cases"),
        ({"a": ("val", 0), "d": ("test", None)}, "its 2 labelled cases leave none for the train split; add cases"),
        ({"a": (None, None)}, "its 0 labelled cases leave none for the train split; add cases"),
    ],
)
def test_nobody_to_train_or_to_validate_on_is_an_error_that_freezes_nothing(
    tmp_path: Path, splits: Mapping[str, tuple[str | None, int | None]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        freeze(tmp_path, write_dataset(tmp_path / "prepared", splits))
    assert not storage.exists(split_path(str(tmp_path / "run")))


# Held against the dataset


def test_modality_that_was_not_prepared_is_named_and_freezes_nothing(tmp_path: Path) -> None:
    prepared = write_dataset(tmp_path / "prepared", modalities=["t1", "t2"])
    with pytest.raises(ConfigError, match=r"^--modalities: .*prepared with t1, t2, not flair$"):
        freeze(tmp_path, prepared)
    assert not storage.exists(split_path(str(tmp_path / "run")))


def test_case_of_the_run_that_the_dataset_lacks_is_named(tmp_path: Path) -> None:
    freeze(tmp_path, write_dataset(tmp_path / "prepared"))
    smaller = write_dataset(tmp_path / "prepared", {name: SPLITS[name] for name in "abcd"})
    with pytest.raises(
        ConfigError, match=r"^--data: .*prepared lacks the case e, which the run in .*run was start"
    ):
        freeze(tmp_path, smaller)


def test_case_of_the_run_that_was_made_anew_from_other_files_is_named(tmp_path: Path) -> None:
    freeze(tmp_path, write_dataset(tmp_path / "prepared"))
    other = write_dataset(tmp_path / "prepared", source_hash="others")
    with pytest.raises(ConfigError, match=r"the files of the case a in .*prepared are not those .* choose another"):
        freeze(tmp_path, other)


def test_case_of_the_run_that_was_read_in_another_coding_is_named(tmp_path: Path) -> None:
    freeze(tmp_path, write_dataset(tmp_path / "prepared"))
    other = write_dataset(tmp_path / "prepared", coding="brats2024-gli")
    with pytest.raises(
        ConfigError, match=r"the case a of .* in the coding brats2024-gli, .* with brats2023; choose"
    ):
        freeze(tmp_path, other)


def test_dataset_in_which_a_case_was_being_prepared_again_is_unfinished(tmp_path: Path) -> None:
    unfinished = write_dataset(tmp_path / "prepared", source_hash=None)
    with pytest.raises(ConfigError, match=r"prepared is unfinished, the case a has changed; run prepare.py again"):
        freeze(tmp_path, unfinished)


def before_planes(tmp_path: Path) -> str:
    """A dataset that counts the tumour of axial slices alone."""
    uncounted: dict[str, Any] = dict.fromkeys(COUNT_COLUMNS[1:])
    return write_dataset(tmp_path / "prepared", SPLITS, **uncounted)


def test_a_dataset_of_before_planes_were_counted_is_split_for_axial_slices(tmp_path: Path) -> None:
    rows = freeze(tmp_path, before_planes(tmp_path))
    assert rows[0]["tumour_per_slice"] == [0, 3, 1]
    assert rows[0]["tumour_per_coronal_slice"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"plane": "coronal"},
            "--plane or --triplanar: .*prepared does not count the tumour voxels of coronal slices",
        ),
        ({"et_ratio": 0.5}, "--et-ratio: .*prepared does not count the ET voxels of axial slices"),
    ],
)
def test_what_a_dataset_does_not_count_is_named_with_the_remedy_and_freezes_nothing(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    config = TrainConfig(out="run", modalities=CONFIG.modalities, **options)
    with pytest.raises(
        ConfigError, match=rf"^{message} \(case a\), .*; prepare the cases again, into a new folder$"
    ):
        freeze(tmp_path, before_planes(tmp_path), config)
    assert not storage.exists(split_path(str(tmp_path / "run")))
    complete = write_dataset(tmp_path / "complete")
    assert freeze(tmp_path, complete, config)[0]["et_per_slice"] == [0, 3, 1]


# Held against case folders


def test_folders_with_the_cases_of_the_run_and_more_are_accepted(tmp_path: Path) -> None:
    freeze(tmp_path, write_dataset(tmp_path / "prepared"))
    found = {name: f"files of {name}" for name in SPLITS}
    check_same_cases(str(tmp_path / "run"), "/data", {**found, "new": "others", "d": None})


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, r"started with the case c, which /data does not hold; choose another --out"),
        ({"c": "others"}, r"the files of the case c in /data are not those that the run in .*run was started with"),
    ],
)
def test_folders_without_a_case_of_the_run_as_it_was_are_refused(
    tmp_path: Path, found: dict[str, str], message: str
) -> None:
    freeze(tmp_path, write_dataset(tmp_path / "prepared"))
    others = {name: f"files of {name}" for name in SPLITS if name != "c"}
    with pytest.raises(ConfigError, match=rf"^--data: .*{message}"):
        check_same_cases(str(tmp_path / "run"), "/data", {**others, **found})


def test_predictions_of_the_test_split_lie_in_the_run() -> None:
    assert run_split.test_dir("/run") == "/run/test"


# Tumour


def test_training_cases_without_any_tumour_are_refused(tmp_path: Path) -> None:
    prepared = write_dataset(tmp_path / "prepared", tumour_per_slice=[0, 0])
    with pytest.raises(ConfigError, match=r"prepared: no case of the train split has a voxel of tumour in its seg"):
        choose_split(CONFIG, str(tmp_path / "run"), prepared)


def test_cases_with_tumour_are_counted_by_split() -> None:
    tumour = {"a": [0, 1], "b": [0, 0], "c": [], "d": [5, 0]}
    rows = [case_row(name, *SPLITS[name], tumour_per_slice=counts) for name, counts in tumour.items()]
    assert [n_with_tumour(rows, name) for name in ("train", "val", "test")] == [1, 0, 1]
