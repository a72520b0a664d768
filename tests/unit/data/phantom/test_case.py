"""Phantoms: what is in a case, how hard it is, and the files written."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from brats import storage
from brats.config import MODALITIES
from brats.data.cases import find_cases
from brats.data.codings import BRATS_2018
from brats.data.phantom.case import (
    ODD_NAME,
    ODD_NAME_INDEX,
    Phantom,
    case_id,
    make_phantom,
    phantom_kind,
    write_name_mapping,
    write_phantom,
)
from brats.labels import ED, ET, NCR, region_mask

pytestmark = pytest.mark.medium

SEED = 0
NO_ET, USUAL, MULTIFOCAL, TINY = 1, 2, 3, 5  # indices of cases of these kinds
N_THRESHOLDED = 8


@pytest.fixture(scope="module")
def phantoms() -> dict[int, Phantom]:
    return {index: make_phantom(index, SEED) for index in (NO_ET, USUAL, MULTIFOCAL, TINY)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of two cases, the second with the oddly named segmentation."""
    root = str(tmp_path_factory.mktemp("phantoms"))
    for index in (USUAL, ODD_NAME_INDEX):
        write_phantom(root, index, SEED)
    write_name_mapping(root, 3, SEED)
    return root


def best_threshold_dice(phantom: Phantom) -> float:
    """Dice of the whole tumour under the best of all FLAIR thresholds within the brain."""
    flair = phantom.images["flair"]
    whole = region_mask(phantom.labels, "WT")
    values = np.arange(int(flair.max()) + 1)
    n_above, n_hit = (
        np.bincount(flair[mask], minlength=len(values))[::-1].cumsum() for mask in (flair > 0, whole & (flair > 0))
    )
    return float((2 * n_hit / (n_above + np.count_nonzero(whole))).max())


def median_of(image: npt.NDArray[np.int16], where: npt.NDArray[np.bool_]) -> float:
    return float(np.median(image[where]))


def test_images_and_labels_lie_on_the_brats_grid(phantoms: dict[int, Phantom]) -> None:
    for phantom in phantoms.values():
        assert tuple(phantom.images) == MODALITIES
        assert {(image.shape, image.dtype) for image in phantom.images.values()} == {
            ((240, 240, 155), np.dtype(np.int16))
        }
        assert (phantom.labels.shape, phantom.labels.dtype) == ((240, 240, 155), np.dtype(np.uint8))


def test_modalities_share_a_brain_of_adult_size_on_a_background_of_zero(phantoms: dict[int, Phantom]) -> None:
    for phantom in phantoms.values():
        brain = phantom.images["t1"] > 0
        assert 1000 < np.count_nonzero(brain) / 1000 < 1900
        for image in phantom.images.values():
            assert image.min() == 0
            np.testing.assert_array_equal(image > 0, brain)


def test_tumour_lies_inside_the_brain(phantoms: dict[int, Phantom]) -> None:
    for phantom in phantoms.values():
        assert not phantom.labels[phantom.images["t1"] == 0].any()


@pytest.mark.parametrize(("first", "seed"), [(1, 0), (1, 7), (4, 0), (8, 3)])
def test_any_ten_cases_hold_every_kind_and_a_fifth_has_no_et(first: int, seed: int) -> None:
    kinds = [phantom_kind(index, seed) for index in range(first, first + 10)]
    assert {kind: kinds.count(kind) for kind in kinds} == {"usual": 5, "no ET": 2, "multifocal": 2, "tiny": 1}


def test_only_the_case_without_et_is_low_grade(phantoms: dict[int, Phantom]) -> None:
    has_et = {index: bool((phantom.labels == ET).any()) for index, phantom in phantoms.items()}
    assert has_et == {NO_ET: False, USUAL: True, MULTIFOCAL: True, TINY: True}
    grades = {index: phantom.grade for index, phantom in phantoms.items()}
    assert grades == {NO_ET: "LGG", USUAL: "HGG", MULTIFOCAL: "HGG", TINY: "HGG"}


def test_only_the_tiny_tumour_has_less_than_1_ml(phantoms: dict[int, Phantom]) -> None:
    volume_ml = {index: np.count_nonzero(phantom.labels) / 1000 for index, phantom in phantoms.items()}
    assert 0.3 < volume_ml.pop(TINY) < 1
    assert all(15 < volume < 150 for volume in volume_ml.values())


def test_only_the_multifocal_tumour_has_several_cores(phantoms: dict[int, Phantom]) -> None:
    n_cores = {}
    for index, phantom in phantoms.items():
        cores, _ = ndimage.label(region_mask(phantom.labels, "TC"))
        sizes = np.bincount(cores.ravel())[1:]
        n_cores[index] = np.count_nonzero(sizes > 0.02 * sizes.sum())
    assert n_cores.pop(MULTIFOCAL) >= 2
    assert set(n_cores.values()) == {1}


def test_tissues_show_as_radiologists_know_them(phantoms: dict[int, Phantom]) -> None:
    labels, images = phantoms[USUAL].labels, phantoms[USUAL].images
    healthy = (images["t1"] > 0) & (labels == 0)
    tumour = {
        (modality, label): median_of(image, labels == label) / median_of(image, healthy)
        for modality, image in images.items()
        for label in (NCR, ED, ET)
    }
    assert tumour["flair", ED] > 1.1
    assert tumour["t2", ED] > 1.1
    assert tumour["t2", NCR] > 1.2
    assert tumour["t1", NCR] < 0.9
    assert tumour["t1ce", ET] > 1.3
    assert tumour["t1ce", ET] > 1.5 * tumour["t1ce", NCR]


def test_every_image_has_an_intensity_scale_of_its_own(phantoms: dict[int, Phantom]) -> None:
    medians = [median_of(image, image > 0) for phantom in phantoms.values() for image in phantom.images.values()]
    assert max(medians) > 1.5 * min(medians)
    assert len(set(medians)) == len(medians)


def test_best_flair_threshold_stays_below_dice_075_in_most_cases(phantoms: dict[int, Phantom]) -> None:
    dice = [
        best_threshold_dice(phantoms[index] if index in phantoms else make_phantom(index, SEED))
        for index in range(1, N_THRESHOLDED + 1)
    ]
    assert sum(value < 0.75 for value in dice) >= 0.75 * N_THRESHOLDED
    assert 0.2 < np.median(dice) < 0.7


def test_threshold_dice_is_1_where_tumour_alone_is_bright() -> None:
    flair = np.array([0, 5, 5, 9, 8], np.int16)
    labels = np.array([0, 0, 0, NCR, ED], np.uint8)
    assert best_threshold_dice(Phantom(images={"flair": flair}, labels=labels, grade="HGG")) == 1
    flair[1] = 8  # now above either 8 (2 hits of 3) or 9 (1 hit of 1)
    assert best_threshold_dice(Phantom(images={"flair": flair}, labels=labels, grade="HGG")) == 0.8


def test_files_of_the_same_seed_are_the_same_bytes(dataset: str, tmp_path: Path) -> None:
    write_phantom(str(tmp_path), USUAL, SEED)
    first, second = storage.list_files(f"{dataset}/{case_id(USUAL)}"), storage.list_files(str(tmp_path))
    assert [file.name for file in first] == [file.name for file in second]
    for one, other in zip(first, second, strict=True):
        assert storage.read_bytes(one.path) == storage.read_bytes(other.path)


def test_another_seed_gives_another_case(phantoms: dict[int, Phantom]) -> None:
    other = make_phantom(USUAL, SEED + 10)  # of the same kind
    assert (other.labels != phantoms[USUAL].labels).any()
    assert (other.images["t1"] != phantoms[USUAL].images["t1"]).any()


def test_files_hold_the_phantom_in_brats_2020_naming_and_codes(dataset: str, phantoms: dict[int, Phantom]) -> None:
    name = "BraTS20_Training_002"
    for modality, image in phantoms[USUAL].images.items():
        stored = nib.Nifti1Image.from_filename(f"{dataset}/{name}/{name}_{modality}.nii.gz")
        assert stored.get_data_dtype() == np.int16
        np.testing.assert_array_equal(np.asanyarray(stored.dataobj), image)
    codes = np.asanyarray(nib.Nifti1Image.from_filename(f"{dataset}/{name}/{name}_seg.nii.gz").dataobj)
    assert set(np.unique(codes)) == {0, 1, 2, 4}
    np.testing.assert_array_equal(BRATS_2018.decode(codes), phantoms[USUAL].labels)


def test_headers_are_those_of_brats(dataset: str) -> None:
    for file in storage.list_files(f"{dataset}/{case_id(USUAL)}"):
        header = nib.Nifti1Image.from_filename(file.path).header
        expected = [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]]
        np.testing.assert_array_equal(header.get_sform(), expected)
        np.testing.assert_array_equal(header.get_qform(), expected)
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
        assert header.get_zooms() == (1, 1, 1)
        assert header.get_xyzt_units()[0] == "mm"


@pytest.mark.real
def test_headers_equal_those_of_a_real_case(dataset: str, real_data_dir: str) -> None:
    real = next(file for file in storage.list_files(real_data_dir) if file.name.endswith("_flair.nii.gz"))
    phantom = f"{dataset}/{case_id(USUAL)}/{case_id(USUAL)}_flair.nii.gz"
    headers = [nib.Nifti1Image.from_filename(path).header for path in (real.path, phantom)]
    for field in ("dim", "datatype", "bitpix", "xyzt_units", "sform_code", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(headers[0][field], headers[1][field], err_msg=field)


def test_one_segmentation_has_the_odd_name_of_brats_2020(dataset: str, phantoms: dict[int, Phantom]) -> None:
    folder = f"{dataset}/{case_id(ODD_NAME_INDEX)}"
    assert not storage.exists(f"{folder}/{case_id(ODD_NAME_INDEX)}_seg.nii.gz")
    codes = np.asanyarray(nib.Nifti1Image.from_filename(f"{folder}/{ODD_NAME}").dataobj)
    np.testing.assert_array_equal(BRATS_2018.decode(codes), phantoms[ODD_NAME_INDEX].labels)


def test_name_mapping_is_that_of_brats_2020(dataset: str) -> None:
    assert storage.read_bytes(f"{dataset}/name_mapping.csv").decode() == (
        "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,"
        "BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
        "LGG,NA,NA,NA,NA,BraTS20_Training_001\n"
        "HGG,NA,NA,NA,NA,BraTS20_Training_002\n"
        "HGG,NA,NA,NA,NA,BraTS20_Training_355\n"
    )


def test_written_cases_are_found_complete(dataset: str) -> None:
    found = find_cases(dataset)
    assert found.rejects == ()
    assert [case.case_id for case in found.cases] == ["BraTS20_Training_002", "BraTS20_Training_355"]
    assert found.notes() == []
    assert len({case.patient_id for case in found.cases}) == 2
    for case in found.cases:
        assert set(case.images) == set(MODALITIES)
        assert case.segmentation is not None
        assert (case.layout, case.grade) == ("brats2018", "HGG")


def test_making_phantoms_loads_neither_scikit_learn_nor_torch() -> None:
    code = (
        "import sys; from brats.data.phantom.anatomy import load_template; load_template(); "
        "print({'sklearn', 'pandas', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
