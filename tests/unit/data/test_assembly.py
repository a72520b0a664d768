"""The images of one case put together."""

import pytest

from brats.config import HDF5_CHANNELS, MODALITIES
from brats.data.assembly import N_SLICES, Assembled, assemble
from brats.data.image_files import Image
from brats.errors import CaseError
from brats.storage import FileInfo


def images(layout: str, *kinds: str, folder: str = "/data/x") -> list[Image]:
    """One file of 10 bytes for each kind."""
    return [
        Image(
            case_id="x",
            layout=layout,
            kind=kind,
            file=FileInfo(f"{folder}/{kind.replace(' ', '_')}.nii.gz", 10),
            is_folder=False,
            grade="",
        )
        for kind in kinds
    ]


def made(found: list[Image]) -> Assembled:
    return assemble("x", found, MODALITIES, HDF5_CHANNELS)


def reason(found: list[Image]) -> str:
    with pytest.raises(CaseError) as error:
        made(found)
    return error.value.reason


SLICES = images("hdf5-slices", *(f"slice_{number}" for number in range(N_SLICES)))


def test_modalities_of_files_of_their_own_are_in_their_order() -> None:
    case = made(images("case-folders", "seg", "t2", "t1ce", "t1", "flair"))
    assert tuple(case.images) == MODALITIES
    assert case.images["t2"].name == "t2.nii.gz"
    assert case.segmentation == FileInfo("/data/x/seg.nii.gz", 10)
    assert (case.channels, case.slices, case.notes) == ((), (), ())


def test_automatic_segmentation_stands_in_with_a_note() -> None:
    case = made(images("upenn-gbm", *MODALITIES, "automatic seg"))
    assert case.segmentation == FileInfo("/data/x/automatic_seg.nii.gz", 10)
    assert case.notes == ("automatic_seg.nii.gz: a program made it, and nobody corrected it",)


def test_missing_modality_is_named_by_the_file_that_is_expected() -> None:
    assert reason(images("case-folders", "t1", "t2", "seg")) == (
        "lacks flair and t1ce (x/flair.nii.gz); found t1, t2, seg"
    )
    assert reason(images("modality-folders", "t1", "t2")) == "lacks flair and t1ce (flair/x.nii.gz); found t1, t2"
    assert reason(images("brats2013-mha", *MODALITIES[:3])) == (
        "lacks t2 (x/VSD.Brain.XX.O.MR_T2.mha); found flair, t1, t1ce"
    )


def test_images_of_two_layouts_are_refused() -> None:
    both = [*images("brats2018", "t1"), *images("case-folders", "t2")]
    assert (
        reason(both) == "files in the forms brats2018 and case-folders: t1.nii.gz and t2.nii.gz; keep those of one"
    )


def test_segmentation_of_healthy_tissues_is_refused() -> None:
    assert reason(images("brats2013-mha", *MODALITIES, "simulated seg")).startswith(
        "simulated_seg.nii.gz: its codes stand for healthy tissues too"
    )


def test_one_file_with_channels_serves_every_modality() -> None:
    case = made(images("msd-task01", "seg", "t2+t1+flair+t1ce"))
    assert tuple(case.images) == MODALITIES
    assert {file.name for file in case.images.values()} == {"t2+t1+flair+t1ce.nii.gz"}
    assert case.channels == ("t2", "t1", "flair", "t1ce")
    assert case.segmentation is not None
    assert case.segmentation.name == "seg.nii.gz"


def test_slices_are_in_the_order_of_their_numbers() -> None:
    case = made(SLICES[::-1])
    assert [file.name for file in case.slices[:3]] == ["slice_0.nii.gz", "slice_1.nii.gz", "slice_2.nii.gz"]
    assert len(case.slices) == 155
    assert case.channels == HDF5_CHANNELS
    assert case.segmentation == case.images["t1"] == FileInfo("/data/x/x_slice_*.h5", 1550)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ({7}, "lacks 7 of the slices 0 to 154"),
        ({0, 154}, "lacks 0, 154 of the slices 0 to 154"),
        ({*range(10, 20)}, "lacks 10, 11, 12, 13, 14 and 5 more of the slices 0 to 154"),
    ],
)
def test_missing_slices_are_named_by_number(gone: set[int], said: str) -> None:
    assert reason([image for number, image in enumerate(SLICES) if number not in gone]) == said


def test_slice_beyond_those_of_brats_is_refused() -> None:
    more = [*SLICES, *images("hdf5-slices", "slice_155")]
    assert reason(more) == "has 155, beyond the slices 0 to 154 of a volume of BraTS"


def test_slices_in_two_folders_are_refused() -> None:
    parted = [*SLICES[1:], *images("hdf5-slices", "slice_0", folder="/data/y")]
    assert reason(parted) == "its slices lie in 2 folders; keep one"
