"""The description of Task01 of the Medical Segmentation Decathlon."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from brats.data.decathlon import Descriptions, read_descriptions
from brats.data.image_files import list_files
from tests.support.forms import DECATHLON

CASE = {"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}


def described(root: Path, files: Sequence[str] = (), **changes: Any) -> Descriptions:
    """What a description with these changes says where there are these files."""
    for name in files:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    value = {**DECATHLON, "training": [CASE], "test": [], **changes}
    (root / "dataset.json").write_text(json.dumps(value))
    return read_descriptions(list_files(str(root)))


def note(root: Path, **changes: Any) -> str:
    """The only thing that a description with these changes says."""
    found = described(root, **changes)
    assert (found.matches, found.rejects) == ({}, [])
    (line,) = found.notes
    assert line.startswith(f"{root}/dataset.json: ")
    assert "\n" not in line
    assert line.endswith("; what it describes is not read")
    return line


def test_files_of_labelled_and_other_cases_are_described(tmp_path: Path) -> None:
    names = [CASE["image"], CASE["label"], "imagesTs/BRATS_485.nii.gz"]
    found = described(tmp_path, names, test=["./imagesTs/BRATS_485.nii.gz"])
    assert {path.removeprefix(f"{tmp_path}/"): match[1:] for path, match in found.matches.items()} == {
        "imagesTr/BRATS_001.nii.gz": ("BRATS_001", "flair+t1+t1ce+t2"),
        "labelsTr/BRATS_001.nii.gz": ("BRATS_001", "seg"),
        "imagesTs/BRATS_485.nii.gz": ("BRATS_485", "flair+t1+t1ce+t2"),
    }
    assert (found.rejects, found.notes) == ([], [])


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([CASE["image"]], "dataset.json names ./labelsTr/BRATS_001.nii.gz, which is not there"),
        ([CASE["label"]], "dataset.json names ./imagesTr/BRATS_001.nii.gz, which is not there"),
        (
            ["imagesTr/other.nii.gz"],
            "dataset.json names ./imagesTr/BRATS_001.nii.gz and ./labelsTr/BRATS_001.nii.gz, which are not there",
        ),
    ],
)
def test_case_whose_files_are_not_there_is_rejected(files: list[str], reason: str, tmp_path: Path) -> None:
    found = described(tmp_path, files)
    (reject,) = found.rejects
    assert (reject.case_id, reject.path, reject.stage) == ("BRATS_001", f"{tmp_path}/dataset.json", "find")
    assert reject.reason == reason
    assert found.matches == {}


def test_order_of_the_channels_is_the_stated_one(tmp_path: Path) -> None:
    order = {"0": "T2w", "1": "t1gd", "2": "FLAIR", "3": "T1w"}
    found = described(tmp_path, [CASE["image"], CASE["label"]], modality=order)
    assert {match.kind for match in found.matches.values()} == {"t2+t1ce+flair+t1", "seg"}


def test_another_task_is_noted_by_its_modality(tmp_path: Path) -> None:
    assert 'its modality is {"0": "MRI"}; Task01_BrainTumour' in note(tmp_path, modality={"0": "MRI"})


@pytest.mark.parametrize(
    "modality", [None, ["FLAIR", "T1w", "t1gd", "T2w"], {"0": "FLAIR"}, {**DECATHLON["modality"], "4": "FLAIR"}]
)
def test_modality_that_is_not_that_of_task01_is_noted(modality: Any, tmp_path: Path) -> None:
    assert "its modality is " in note(tmp_path, modality=modality)


def test_other_labels_are_noted(tmp_path: Path) -> None:
    labels = {**DECATHLON["labels"], "1": "necrosis"}
    assert 'its labels are {"0": "background", "1": "necrosis"' in note(tmp_path, labels=labels)


@pytest.mark.parametrize("entries", [{"image": "x"}, "x"])
def test_training_that_is_no_list_is_noted(entries: Any, tmp_path: Path) -> None:
    assert "its training is no list" in note(tmp_path, training=entries)


@pytest.mark.parametrize("entry", [1, {"label": "x"}, {"image": 1}, {"image": "x", "label": 2}])
def test_entry_that_names_no_files_is_noted(entry: Any, tmp_path: Path) -> None:
    assert "an entry names no files: " in note(tmp_path, training=[entry])


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_description_that_is_no_json_is_noted(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes(content)
    (line,) = read_descriptions(list_files(str(tmp_path))).notes
    assert "dataset.json: not JSON (" in line
    assert "\n" not in line


def test_description_that_is_no_object_is_noted(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("[]")
    (line,) = read_descriptions(list_files(str(tmp_path))).notes
    assert line == f"{tmp_path}/dataset.json: not an object of JSON; what it describes is not read"
