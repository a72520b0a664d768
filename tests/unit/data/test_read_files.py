"""Reading the files of a case, in every form in which BraTS is handed around."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brats import storage
from brats.config import MODALITIES, CodingName, Modality
from brats.data.case import Case
from brats.data.cases import DEFAULT_HDF5, CaseFiles, Hdf5Options, find_cases
from brats.data.preprocess import read_case
from brats.data.read_files import read_files, read_reference
from brats.errors import CaseError
from tests.support.forms import ASKED, FORMS, write_decathlon_case, write_hdf5_slices, write_upenn_gbm
from tests.support.synthetic import make_images, write_case


def found(root: Path, coding: str = "auto", hdf5: Hdf5Options = DEFAULT_HDF5) -> CaseFiles:
    """The only case below a folder."""
    cases = find_cases(str(root), coding=coding, hdf5=hdf5)
    assert cases.rejects == ()
    (case,) = cases.cases
    return case


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The phantom of number 3 as a BraTS case folder."""
    root = tmp_path_factory.mktemp("plain")
    write_case(str(root), "case", seed=3)
    return read_case(found(root), MODALITIES)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same phantom in every form: a folder of each."""
    folders = {form: tmp_path_factory.mktemp(form) for form in FORMS}
    for form, folder in folders.items():
        FORMS[form](folder, 3)
    return folders


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_voxels_and_labels_of_its_phantom(
    form: str, plain: Case, written: dict[str, Path]
) -> None:
    files = found(written[form], ASKED.get(form, "auto"))
    assert files.layout == form
    case = read_case(files, MODALITIES)
    assert case.labels is not None
    assert plain.labels is not None
    np.testing.assert_array_equal(case.labels, plain.labels)
    assert list(case.images) == list(MODALITIES)
    for name, image in case.images.items():
        expected = plain.images[name]
        if form == "hdf5-slices":  # normalised with more slices around: the same but for offset and scale
            image = np.rint((image - image.min()) * (expected.max() / np.ptp(image)))
        np.testing.assert_array_equal(image, expected)
    assert (case.voxel_hash == plain.voxel_hash) == (form != "hdf5-slices")


@pytest.mark.parametrize("form", FORMS)
def test_every_file_of_a_case_is_a_source_once(form: str, written: dict[str, Path]) -> None:
    files = found(written[form], ASKED.get(form, "auto"))
    sources = read_case(files, MODALITIES).sources
    paths = [file.path for file in sources]
    assert len(set(paths)) == len(paths) == {"msd-task01": 2, "hdf5-slices": 155}.get(form, 5)
    assert len({file.kind for file in sources}) == len(sources)
    assert all(file.hash and Path(file.path).stat().st_size == file.size for file in sources)


@pytest.mark.parametrize("form", ["msd-task01", "brats2013-mha", "hdf5-slices"])
def test_reference_alone_is_that_of_the_case(form: str, written: dict[str, Path]) -> None:
    files = found(written[form])
    whole, alone = read_files(files, ("t1",)).segmentation, read_reference(files)
    assert whole is not None
    np.testing.assert_array_equal(alone.labels, whole.labels)
    assert alone.grid == whole.grid


def test_file_of_several_channels_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_decathlon_case(tmp_path, 3)
    files = found(tmp_path)
    read: list[str] = []
    original = storage.read_bytes

    def count(path: str) -> bytes:
        read.append(path)
        return original(path)

    monkeypatch.setattr(storage, "read_bytes", count)
    read_case(files, MODALITIES)
    assert sorted(path.rsplit("/", 2)[-2] for path in read) == ["imagesTr", "labelsTr"]


def test_modality_is_the_channel_that_the_description_states(tmp_path: Path) -> None:
    write_decathlon_case(tmp_path, 3)
    path = tmp_path / "dataset.json"
    path.write_text(path.read_text().replace('"0": "FLAIR"', '"0": "T2w"').replace('"3": "T2w"', '"3": "FLAIR"'))
    images, _ = make_images(3)
    read = read_files(found(tmp_path), ("flair", "t2")).images
    for stored_as, name in (("t2", "flair"), ("flair", "t2")):
        assert read[name].volume.voxels.sum() == images[stored_as].sum()


def test_image_with_fewer_channels_than_described_is_refused(tmp_path: Path) -> None:
    write_decathlon_case(tmp_path, 3)
    files = replace(found(tmp_path), channels=("flair", "t1", "t1ce"))
    with pytest.raises(CaseError, match=r"4-D with shape \(40, 36, 16, 4\), where 3 volumes are expected"):
        read_files(files, ("t1",))


@pytest.mark.parametrize("coding", ["brats2012", "brats2013"])
def test_labels_of_2012_are_read_in_the_coding_asked_for(coding: CodingName, tmp_path: Path) -> None:
    FORMS["brats2012-mha"](tmp_path, 3)
    files = found(tmp_path, coding)
    if coding == "brats2012":
        with pytest.raises(CaseError, match=r"unknown label 4 .* brats2012 defines \[0, 1, 2\]"):
            read_files(files, ())
        assert files.notes == (
            "BRATS_HG0003_truth.mha: its coding has no ET apart from the core; scores of ET say nothing",
        )
    else:
        assert read_files(files, ()).warnings == ()


def test_automatic_segmentation_is_warned_of(tmp_path: Path) -> None:
    write_upenn_gbm(tmp_path, 3, "automated_segm/{}_automated_approx_segm.nii.gz")
    (warning,) = read_files(found(tmp_path), ("t1",)).warnings
    assert warning == "UPENN-GBM-00003_11_automated_approx_segm.nii.gz: a program made it, and nobody corrected it"


def test_channels_in_another_order_than_stated_are_warned_of(tmp_path: Path) -> None:
    order: tuple[Modality, ...] = ("flair", "t1", "t1ce", "t2")
    write_hdf5_slices(tmp_path, 3, order)
    (warning,) = read_files(found(tmp_path), ("t1",)).warnings
    assert warning.startswith(
        "volume_3_slice_*.h5: by its tumour its channels look like flair t1 t1ce t2, but are "
    )
    assert read_files(found(tmp_path, hdf5=Hdf5Options(channels=order)), ("t1",)).warnings == ()


def test_slices_have_the_voxel_size_asked_for(written: dict[str, Path]) -> None:
    case = read_case(found(written["hdf5-slices"], hdf5=Hdf5Options(spacing_hwz_mm=(1.0, 2.0, 3.0))), ("t1",))
    assert case.grid.spacing_xyz_mm == (1.0, 2.0, 3.0)
    assert case.grid.shape == (40, 36, 155)
