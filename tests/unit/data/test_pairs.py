"""Finding the predictions of other programs: by exact name, one for each reference, nothing in silence."""

from pathlib import Path

import pytest

from brats.data.pairs import find_pairs
from brats.errors import BratsError, ConfigError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """References of the cases a, b and c; without them in it, the folder of the predictions."""
    (tmp_path / "masks").mkdir()
    for name in "abc":
        touch(tmp_path / "cases" / name / f"{name}_seg.nii.gz")
        touch(tmp_path / "cases" / name / f"{name}_t1.nii.gz")
    return tmp_path


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not read")
    return path


def found(root: Path) -> dict[str, str]:
    """By case id, the prediction below the folder."""
    pairs = find_pairs(str(root / "masks"), str(root / "cases")).pairs
    return {pair.case.case_id: pair.prediction.path.removeprefix(f"{root}/masks/") for pair in pairs}


def test_predictions_are_found_at_any_depth_by_name(root: Path) -> None:
    for name in ("a.nii.gz", "one/b.nii", "one/two/c.mha"):
        touch(root / "masks" / name)
    assert found(root) == {"a": "a.nii.gz", "b": "one/b.nii", "c": "one/two/c.mha"}


def test_pair_has_the_segmentation_of_its_case_as_reference(root: Path) -> None:
    touch(root / "masks" / "b.nii.gz")
    (pair,) = find_pairs(str(root / "masks"), str(root / "cases")).pairs
    assert pair.reference.path == f"{root}/cases/b/b_seg.nii.gz"


def test_suffix_in_any_case_of_letters_is_taken(root: Path) -> None:
    for name in ("a.NII.GZ", "b.Nii", "c.nii.GZ"):
        touch(root / "masks" / name)
    assert found(root) == {"a": "a.NII.GZ", "b": "b.Nii", "c": "c.nii.GZ"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.nii", "a.nii.gz"),
        ("a.NII.GZ", "a.nii.gz"),
        ("fold_0/raw/a.nii.gz", "fold_0/raw_postprocessed/a.nii.gz"),
    ],
)
def test_two_predictions_for_one_case_are_refused_with_both_named(root: Path, one: str, other: str) -> None:
    for name in ("b.nii.gz", one, other):
        touch(root / "masks" / name)
    with pytest.raises(ConfigError) as caught:
        find_pairs(str(root / "masks"), str(root / "cases"))
    assert str(caught.value) == (
        f"--predictions: a has 2 predictions, {root}/masks/{one} and {root}/masks/{other}; keep one, or name the "
        "folder of those that are meant"
    )


def test_further_doubles_are_counted(root: Path) -> None:
    for folder in ("one", "three", "two"):
        for name in "ab":
            touch(root / "masks" / folder / f"{name}.nii.gz")
    with pytest.raises(
        ConfigError, match=r"a has 3 .*one/a.nii.gz and .*three/a.nii.gz and 1 more, one of 2 such cases;"
    ):
        find_pairs(str(root / "masks"), str(root / "cases"))


def test_two_predictions_for_no_reference_are_only_counted(root: Path) -> None:
    for name in ("a.nii.gz", "x.nii", "x.nii.gz"):
        touch(root / "masks" / name)
    pairs = find_pairs(str(root / "masks"), str(root / "cases"))
    assert [pair.case.case_id for pair in pairs.pairs] == ["a"]
    assert pairs.warnings() == ["predictions named after no reference: 2 of 3, x.nii, x.nii.gz"]


def test_names_of_many_unused_predictions_are_cut(root: Path) -> None:
    for name in ("a", "x1", "x2", "x3", "x4"):
        touch(root / "masks" / f"{name}.nii.gz")
    (line,) = find_pairs(str(root / "masks"), str(root / "cases")).warnings()
    assert line == "predictions named after no reference: 4 of 5, x1.nii.gz, x2.nii.gz, x3.nii.gz and 1 more"


def test_hidden_files_are_no_predictions(root: Path) -> None:
    for name in ("a.nii.gz", ".a.nii.gz", "._a.nii.gz", ".trash/a.nii.gz", "b.nii.gz", "c.nii.gz"):
        touch(root / "masks" / name)
    assert found(root) == {name: f"{name}.nii.gz" for name in "abc"}
    assert find_pairs(str(root / "masks"), str(root / "cases")).warnings() == []


def test_predictions_below_a_hidden_folder_are_found(root: Path) -> None:
    hidden = root / ".cache"
    (root / "masks").rename(hidden)
    touch(hidden / "a.nii.gz")
    (pair,) = find_pairs(str(hidden), str(root / "cases")).pairs
    assert pair.case.case_id == "a"


def test_reference_without_a_prediction_is_a_reject_and_names_what_may_be_meant(root: Path) -> None:
    for name in ("a.nii.gz", "B.nii.gz", "c_seg.nii.gz"):
        touch(root / "masks" / name)
    pairs = find_pairs(str(root / "masks"), str(root / "cases"))
    assert {reject.case_id: reject.reason for reject in pairs.rejects} == {
        "b": f"no prediction {root}/masks/<case_id>.nii.gz; B.nii.gz is not named so",
        "c": f"no prediction {root}/masks/<case_id>.nii.gz; c_seg.nii.gz is not named so",
    }
    assert pairs.warnings() == ["predictions named after no reference: 2 of 3, B.nii.gz, c_seg.nii.gz"]


def test_name_that_begins_with_another_is_not_meant_for_it(root: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz", "c1.nii.gz"):
        touch(root / "masks" / name)
    (reject,) = find_pairs(str(root / "masks"), str(root / "cases")).rejects
    assert reject.reason == f"no prediction {root}/masks/<case_id>.nii.gz"


def test_folder_with_the_name_of_a_prediction_is_named(root: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz/00000057_final_seg.nii"):
        touch(root / "masks" / name)
    (reject,) = find_pairs(str(root / "masks"), str(root / "cases")).rejects
    assert (reject.case_id, reject.reason) == ("c", "its prediction c.nii.gz is a folder, not a file")


def test_ids_that_differ_only_by_case_of_letters_are_two_cases(root: Path) -> None:
    touch(root / "cases" / "upper" / "A_seg.nii.gz")
    for name in ("a.nii.gz", "A.nii.gz"):
        touch(root / "masks" / name)
    assert found(root) == {"A": "A.nii.gz", "a": "a.nii.gz"}


def test_prediction_of_a_rejected_case_is_not_counted_as_unused(root: Path) -> None:
    touch(root / "cases" / "again" / "b_seg.nii.gz")
    for name in "abc":
        touch(root / "masks" / f"{name}.nii.gz")
    pairs = find_pairs(str(root / "masks"), str(root / "cases"))
    assert [reject.case_id for reject in pairs.rejects] == ["b"]
    assert pairs.warnings() == []


def test_no_prediction_at_all_is_an_error_with_an_example(root: Path) -> None:
    for name in ("a_seg", "b_seg"):
        touch(root / "masks" / f"{name}.nii.gz")
    with pytest.raises(ConfigError) as caught:
        find_pairs(str(root / "masks"), str(root / "cases"))
    assert str(caught.value) == (
        f"{root}/masks: none of its 2 NIfTI files is named <case_id>.nii.gz after one of the 3 references in "
        f"{root}/cases; found a_seg.nii.gz, b_seg.nii.gz, expected a.nii.gz"
    )


def test_references_that_are_all_rejected_are_named_with_the_reason(tmp_path: Path) -> None:
    touch(tmp_path / "masks" / "BraTS-PED-00001-000.nii.gz")
    touch(tmp_path / "cases" / "BraTS-PED-00001-000-seg.nii.gz")
    with pytest.raises(
        BratsError, match=r"no usable case; the first of 1 rejected: BraTS-PED-00001-000: .*--coding"
    ):
        find_pairs(str(tmp_path / "masks"), str(tmp_path / "cases"))
    (pair,) = find_pairs(str(tmp_path / "masks"), str(tmp_path / "cases"), "brats2024-ped").pairs
    assert pair.case.coding == "brats2024-ped"


def test_missing_folder_is_an_error(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"--predictions: .*/nowhere does not exist"):
        find_pairs(str(root / "nowhere"), str(root / "cases"))
