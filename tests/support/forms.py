"""The cases of `tests.support.synthetic` in every form in which BraTS is handed around."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brats.config import HDF5_CHANNELS
from brats.data.assembly import N_SLICES
from brats.data.codings import BRATS_2013, BRATS_2018, BRATS_2023, MSD_TASK01, Coding
from brats.labels import ED, ET, NCR, Labels
from tests.support.hdf5_files import hdf5_slice
from tests.support.mha_files import mha
from tests.support.synthetic import AFFINE, make_images, save

DECATHLON: dict[str, Any] = {
    "name": "BRATS",
    "tensorImageSize": "4D",
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
}
"""What `dataset.json` of Task01_BrainTumour says, but for its lists of files."""
FIRST_SLICE = 70  # of 155 in which the phantom lies

Array = npt.NDArray[Any]


def write_case_folder(root: Path, number: int) -> str:
    """Files that bear the name of their modality alone, as BrainLesion's preprocessing writes them."""
    names = {"flair": "fla", "t1": "t1", "t1ce": "t1c", "t2": "t2"}
    images, labels = make_images(number)
    for modality, image in images.items():
        write_nifti(root / f"patient{number}/{names[modality]}.nii.gz", image)
    write_nifti(root / f"patient{number}/seg.nii.gz", BRATS_2023.encode(labels))
    return f"patient{number}"


def write_modality_folders(root: Path, number: int) -> str:
    """A folder for each modality, and one for the labels."""
    images, labels = make_images(number)
    for modality, image in images.items():
        write_nifti(root / f"{modality}/patient{number}.nii.gz", image)
    write_nifti(root / f"labels/patient{number}.nii.gz", BRATS_2023.encode(labels))
    return f"patient{number}"


def write_decathlon_case(root: Path, number: int, labelled: bool = True) -> str:
    """One more case of Task01, described in its dataset.json."""
    path = root / "dataset.json"
    described = json.loads(path.read_text()) if path.exists() else {**DECATHLON, "training": [], "test": []}
    images, labels = make_images(number)
    name = f"BRATS_{number:03d}.nii.gz"
    channels = np.stack([images[modality] for modality in ("flair", "t1", "t1ce", "t2")], axis=3)
    folder = "imagesTr" if labelled else "imagesTs"
    write_nifti(root / folder / name, channels.astype(np.float32))
    (root / folder / f"._{name}").write_bytes(b"as macOS leaves it behind")
    if labelled:
        write_nifti(root / "labelsTr" / name, MSD_TASK01.encode(labels))
        described["training"].append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    else:
        described["test"].append(f"./imagesTs/{name}")
    path.write_text(json.dumps(described))
    return f"BRATS_{number:03d}"


def write_mha_2013(root: Path, number: int) -> str:
    """A case of BRATS 2013: each file in a folder of its own, below one that is numbered for each grade."""
    images, labels = make_images(number)
    names = {"flair": "MR_Flair", "t1": "MR_T1", "t1ce": "MR_T1c", "t2": "MR_T2"}
    for file_number, (modality, image) in enumerate(images.items(), start=684):
        name = f"VSD.Brain.XX.O.{names[modality]}"
        suffix = " (1)" if modality == "t1" else ""
        write_mha(root / f"HG/{number:04d}/{name}/{name}.{file_number}{suffix}.mha", image)
    name = "VSD.Brain_3more.XX.XX.OT"
    write_mha(root / f"HG/{number:04d}/{name}/{name}.6560.mha", BRATS_2013.encode(labels).astype(np.int16))
    return f"HG_{number:04d}"


def write_mha_2012(root: Path, number: int) -> str:
    """A case of BRATS 2012, its labels beside its folder, in the codes of later copies."""
    images, labels = make_images(number)
    case_id = f"BRATS_HG{number:04d}"
    for modality, image in images.items():
        kind = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1C", "t2": "T2"}[modality]
        write_mha(root / case_id / f"{case_id}_{kind}.mha", image)
    write_mha(root / f"{case_id}_truth.mha", BRATS_2013.encode(labels).astype(np.int16))
    return case_id


def write_hdf5_slices(root: Path, number: int, channels: Sequence[str] = HDF5_CHANNELS) -> str:
    """A volume of slices as on Kaggle: normalised with its background, and a mask for each tissue."""
    images, labels = make_images(number)
    root.mkdir(parents=True, exist_ok=True)
    normalised = np.stack([normalise(images[modality]) for modality in channels], axis=3)
    masks = np.stack([labels == label for label in (NCR, ED, ET)], axis=3).astype(np.uint8)
    empty = hdf5_slice(np.broadcast_to(normalised[0, 0, 0], (*labels.shape[:2], 4)), 0 * masks[:, :, 0], "by gzip")
    for k in range(N_SLICES):
        inside = 0 <= (z := k - FIRST_SLICE) < labels.shape[2]
        content = hdf5_slice(normalised[:, :, z], masks[:, :, z], "by gzip") if inside else empty
        (root / f"volume_{number}_slice_{k}.h5").write_bytes(content)
    return f"volume_{number}"


def write_ucsf_pdgm(root: Path, number: int) -> str:
    """A case of UCSF-PDGM, with some of the files that lie beside its four images."""
    case_id = f"UCSF-PDGM-{number:04d}"
    names = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1c", "t2": "T2"}
    folder = root / f"{case_id}_nifti"
    _write_collection(folder, case_id, number, names, folder / f"{case_id}_tumor_segmentation.nii.gz")
    for other in ("ADC", "T1_bias", "brain_segmentation"):
        (folder / f"{case_id}_{other}.nii.gz").write_bytes(b"not read")
    return case_id


def write_upenn_gbm(root: Path, number: int, segmentation: str = "images_segm/{}_segm.nii.gz") -> str:
    """A case of UPENN-GBM, its segmentation in a folder of its own."""
    case_id = f"UPENN-GBM-{number:05d}_11"
    names = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1GD", "t2": "T2"}
    folder = root / "images_structural" / case_id
    _write_collection(folder, case_id, number, names, root / segmentation.format(case_id))
    return case_id


def _write_collection(
    folder: Path,
    case_id: str,
    number: int,
    names: dict[str, str],
    segmentation: Path,
    coding: Coding = BRATS_2018,
) -> None:
    images, labels = make_images(number)
    for modality, image in images.items():
        write_nifti(folder / f"{case_id}_{names[modality]}.nii.gz", image)
    write_nifti(segmentation, coding.encode(labels))


def write_bids(root: Path, number: int) -> str:
    """A case of a BIDS derivative, its segmentation in a derivative of its own, and a mask that is not read."""
    case_id = f"sub-{number:03d}_ses-01"
    names = {
        "flair": "space-SRI24_FLAIR",
        "t1": "space-SRI24_T1w",
        "t1ce": "ce-gadolinium_space-SRI24_T1w",
        "t2": "space-SRI24_T2w",
    }
    folder = f"sub-{number:03d}/ses-01/anat"
    segmentation = root / "segmented" / folder / f"{case_id}_space-SRI24_desc-tumour_dseg.nii.gz"
    _write_collection(root / "registered" / folder, case_id, number, names, segmentation, BRATS_2023)
    (root / "registered" / folder / f"{case_id}_space-SRI24_desc-brain_mask.nii.gz").write_bytes(b"not read")
    return case_id


FORMS: dict[str, Callable[[Path, int], str]] = {
    "case-folders": write_case_folder,
    "modality-folders": write_modality_folders,
    "msd-task01": write_decathlon_case,
    "brats2013-mha": write_mha_2013,
    "brats2012-mha": write_mha_2012,
    "hdf5-slices": write_hdf5_slices,
    "ucsf-pdgm": write_ucsf_pdgm,
    "upenn-gbm": write_upenn_gbm,
    "bids": write_bids,
}
"""By the layout that each is: writes a case of this number below a folder, and returns its id."""
ASKED = {
    "case-folders": "brats2023",
    "modality-folders": "brats2023",
    "brats2012-mha": "brats2013",
    "bids": "brats2023",
}
"""The `--coding` that forms need whose names leave it open."""


def normalise(image: Array) -> Array:
    """An image with mean 0 and standard deviation 1, its background included."""
    normalised: Array = (image - image.mean()) / image.std()
    return normalised


def write_nifti(path: Path, voxels: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save(voxels, str(path), AFFINE)


def write_mha(path: Path, voxels: Array | Labels) -> None:
    """Write voxels of 1 x 1 x 1.5 mm, which grow to the left and to the back as those of BraTS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mha(voxels, ElementSpacing="1 1 1.5", Offset="0 -35 2"))
