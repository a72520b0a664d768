"""Claim 1: a case from .nii.gz files to normalised, cropped tensors, on one core.

Axes: `C` modality, `X Y Z` voxel axes in RAS+, `Z H W` slices of a crop.
"""

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import deflate
import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip

from benchmarks.command import run_benchmark
from benchmarks.harness import (
    LIMIT,
    Outcome,
    Row,
    Spread,
    check_close,
    compare,
    cores,
    interleaved,
    peer_module,
    require,
    spreads,
)
from benchmarks.sources import Source, sources, warm
from brats.config import MODALITIES
from brats.data.cases import CaseFiles
from brats.data.preprocess import read_case

Array = npt.NDArray[Any]
BATCH = 16  # slices normalised at a time, as PredictConfig has it
TOLERANCE = 5e-3  # float32 sums in another order, and TorchIO's n - 1 under the standard deviation


def ours(files: CaseFiles) -> list[Any]:
    """As prediction does it: read and crop, then normalise batch by batch. Tensors (B, C, X, Y)."""
    from brats.data.batches import InputSpec
    from brats.model.inputs import RawCase

    case = read_case(files, MODALITIES)
    inputs = InputSpec(modalities=MODALITIES, divisor=1)
    return list(RawCase.of(case, inputs, pinned=False).batches(BATCH))


def with_nibabel(files: CaseFiles) -> Array:
    """The straightforward way: nibabel, its canonical orientation, and numpy."""
    images = [
        nib.as_closest_canonical(nib.load(files.images[name].path)).get_fdata(dtype=np.float32)
        for name in MODALITIES
    ]
    np.asarray(nib.as_closest_canonical(nib.load(_segmentation(files))).dataobj)
    stack = np.stack(images)
    return _normalised(stack[(slice(None), *_box(np.any(stack != 0, axis=0)))])


def _normalised(stack: Array) -> Array:
    for channel in stack:
        brain = channel != 0
        values = channel[brain]
        channel[brain] = (values - values.mean()) / values.std()
    return stack


def _box(mask: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    occupied = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(found[0]), int(found[-1]) + 1) for found in occupied)


def _segmentation(files: CaseFiles) -> str:
    assert files.segmentation is not None
    return files.segmentation.path


def monai_reader() -> Callable[[CaseFiles], Array]:
    """The transforms of MONAI's BraTS tutorial, and CropForeground, in the order that costs MONAI least.

    Four files under one key become one image with four channels. Cropping comes before turning and normalising,
    which then touch a third of the voxels; `nonzero` makes the order matter not at all for the values.
    """
    monai = peer_module("monai.transforms")
    keys = ["image", "label"]
    transform = monai.Compose(
        [
            monai.LoadImaged(keys, reader="NibabelReader"),
            monai.EnsureChannelFirstd(keys),
            monai.CropForegroundd(keys, source_key="image", allow_smaller=True),
            monai.Orientationd(keys, axcodes="RAS", labels=None),
            monai.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        ]
    )

    def read(files: CaseFiles) -> Array:
        paths = [files.images[name].path for name in MODALITIES]
        return np.asarray(transform({"image": paths, "label": _segmentation(files)})["image"].array)

    return read


def torchio_reader() -> Callable[[CaseFiles], Array]:
    """TorchIO's Subject with ToCanonical, CropOrPad to a foreground mask, and ZNormalization over the foreground.

    It has no transform that finds the foreground; the mask is made in one line and passed as a label map. Again
    cropping comes first, which is the cheaper order. ToCanonical is left until then too.
    """
    tio = peer_module("torchio")
    finish = tio.Compose(
        [
            tio.CropOrPad(mask_name="brain"),
            tio.ToCanonical(),
            tio.ZNormalization(masking_method=lambda image: image != 0),
        ]
    )

    def read(files: CaseFiles) -> Array:
        images = {name: tio.ScalarImage(files.images[name].path) for name in MODALITIES}
        subject = tio.Subject(**images, seg=tio.LabelMap(_segmentation(files)))
        subject.load()
        first = subject[MODALITIES[0]]
        brain = sum((subject[name].data != 0) for name in MODALITIES) > 0
        subject.add_image(tio.LabelMap(tensor=brain, affine=first.affine), "brain")
        done = finish(subject)
        return np.concatenate([done[name].data.numpy() for name in MODALITIES])

    return read


def inflate(files: CaseFiles, decompress: Callable[[bytes], bytes | bytearray]) -> None:
    """Read and decompress the five files, and nothing else."""
    for path in (*(files.images[name].path for name in MODALITIES), _segmentation(files)):
        content = Path(path).read_bytes()
        if content.startswith(b"\x1f\x8b"):
            decompress(content)


def agree(files: CaseFiles, peers: Mapping[str, Callable[[CaseFiles], Array]]) -> None:
    """All sides give the same brain. (Our box holds stray labels too; TorchIO's background is not 0.)"""
    own = np.concatenate([batch.numpy() for batch in ours(files)]).transpose(1, 2, 3, 0)
    brain = own != 0
    box = (slice(None), *_box(brain.any(axis=0)))
    for name, read in peers.items():
        what = f"{files.case_id}: the normalised brain"
        check_close(what, own[box][brain[box]], name, read(files)[brain[box]], TOLERANCE)


def measure_source(
    source: Source, peers: Mapping[str, Callable[[CaseFiles], Array]], repetitions: int
) -> tuple[list[Row], dict[str, Spread]]:
    """The rows of one kind of cases, and the times behind them in ms per case."""
    warm(source.cases)
    for files in source.cases:
        agree(files, peers)
    readers: dict[str, Callable[[CaseFiles], Any]] = {
        "ours": ours,
        "libdeflate": functools.partial(inflate, decompress=deflate.gzip_decompress),
        "isal": functools.partial(inflate, decompress=igzip.decompress),
        "zlib": functools.partial(inflate, decompress=functools.partial(zlib.decompress, wbits=31)),
        **peers,
    }
    sides = {name: functools.partial(_read_all, source.cases, read) for name, read in readers.items()}
    with cores(1):
        seconds = interleaved(sides, repetitions)
    times = {name: spread.scaled(1000 / len(source.cases)) for name, spread in seconds.items()}
    stage = f"read a {source.name} case"
    rows = [
        compare(stage, times["ours"], LIMIT + "libdeflate alone", times["libdeflate"], "ms", target=0.5),
        compare(stage, times["ours"], "isal decompression", times["isal"], "ms"),
        compare(stage, times["ours"], "zlib decompression", times["zlib"], "ms"),
        compare(stage, times["ours"], "nibabel + numpy", times["nibabel + numpy"], "ms"),
        compare(stage, times["ours"], "MONAI", times["MONAI"], "ms", target=6),
        compare(stage, times["ours"], "TorchIO", times["TorchIO"], "ms", target=2),
    ]
    return rows, times


def _read_all(cases: Sequence[CaseFiles], read: Callable[[CaseFiles], Any]) -> None:
    for files in cases:
        read(files)


def measure(quick: bool) -> Outcome:
    require("monai", "torchio")
    peers = {"nibabel + numpy": with_nibabel, "MONAI": monai_reader(), "TorchIO": torchio_reader()}
    rows: list[Row] = []
    details = {}
    for source in sources(1 if quick else 2):
        found, times = measure_source(source, peers, 2 if quick else 5)
        rows += found
        details[f"read a {source.name} case"] = spreads(times, "ms")
    return Outcome(rows=rows, details=details)


if __name__ == "__main__":
    run_benchmark(measure)
