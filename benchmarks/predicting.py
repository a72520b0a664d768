"""Claim 4: a case from its files to a written mask, by one network in three ways; and how well the stages overlap.

Axes: `C` modality, `R` region, `X Y Z` voxel axes, `B H W` slices of a batch.
"""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.command import run_benchmark
from benchmarks.harness import (
    LIMIT,
    BenchmarkError,
    Outcome,
    Row,
    check_close,
    check_growth,
    compare,
    interleaved,
    peer_module,
    require,
    spreads,
)
from benchmarks.sources import copies, job_command, phantoms, prepared, prepared_thin, trained_run, warm
from benchmarks.watch import Usage, watch
from brats import storage
from brats.config import MODALITIES, Precision
from brats.data.batches import InputSpec
from brats.data.cases import CaseFiles
from brats.data.codings import CODINGS
from brats.data.preprocess import read_case
from brats.data.volume import nifti_bytes, read_segmentation
from brats.labels import REGIONS
from brats.model.bundle import find_bundle, load_bundle
from brats.model.decoding import label_map
from brats.model.fusion import for_inference
from brats.model.inference import Segmenter
from brats.model.levels import segment
from brats.model.precision import autocast, choose_precision
from brats.score.metrics import case_metrics, count_overlap
from brats.storage import FileInfo

BATCH_SIZE = 16
NOTEBOOK = "notebook"
SAME_DICE = 0.002
QUICK_DICE = 0.1  # a network of a few steps is unsure everywhere
OVERLAP = 1 / 1.15
MOST_CPU = 1.1  # of what the cores have: what is measured of it is not exact
CPU = torch.device("cpu")

Side = Callable[[CaseFiles, Path], None]
"""Predicts a case and writes its mask to a .nii.gz file."""


def our_way(network: nn.Module, inputs: InputSpec, precision: Precision) -> Side:
    """What the three steps of the pipeline do."""
    network = for_inference(network, inputs.n_channels, precision)
    segmenter = Segmenter(network=network, inputs=inputs, device=CPU, precision=precision)

    def run(files: CaseFiles, path: Path) -> None:
        case = read_case(files, inputs.modalities)
        volume = case.on_source_grid(segment(segmenter, case, BATCH_SIZE).labels)
        storage.write_bytes(str(path), nifti_bytes(volume, case.grid, case.coding))

    return run


def notebook_way(network: nn.Module) -> Side:
    """Every slice of the volume at its full size, padded to what the network divides, one volume at a time, fp32.

    As notebooks on BraTS do it, except that they mostly shrink the slices to 128 x 128, which would lose voxels.
    """

    @torch.inference_mode()
    def run(files: CaseFiles, path: Path) -> None:
        images = [nib.load(files.images[name].path) for name in MODALITIES]
        # In RAS+, as the network has learnt them; the notebooks' networks have learnt the files' own axes.
        canonical = [nib.as_closest_canonical(image).get_fdata(dtype=np.float32) for image in images]
        volume = np.stack([_normalised(image) for image in canonical])
        _, height, width, n_slices = volume.shape
        padded = np.zeros((n_slices, len(volume), *(-(-size // 32) * 32 for size in (height, width))), np.float32)
        padded[:, :, :height, :width] = np.moveaxis(volume, 3, 0)
        parts = []
        for slices in torch.from_numpy(padded).split(BATCH_SIZE):
            logits = network(slices.contiguous(memory_format=torch.channels_last))
            parts.append(label_map(logits > 0)[:, :height, :width])
        labels = np.moveaxis(torch.cat(parts).numpy(), 0, 2)
        first = images[0]
        turn = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.io_orientation(first.affine)
        )
        codes = CODINGS[files.coding].encode(nib.orientations.apply_orientation(labels, turn))
        nib.save(nib.Nifti1Image(codes, first.affine), path)

    return run


def _normalised(image: Any) -> Any:
    brain = image != 0
    values = image[brain]
    image[brain] = (values - values.mean()) / values.std()
    return image


def monai_way(network: nn.Module, precision: Precision) -> Side:
    """MONAI's transforms, its SliceInferer (the SlidingWindowInferer for 2-D networks on volumes), and SaveImage.

    At its best: cropped to the foreground and padded to what the network divides, so that every slice is one
    window and nothing is computed twice; as many windows at a time as we take slices; the same arithmetic.
    """
    data, inferers, transforms = (peer_module(f"monai.{room}") for room in ("data", "inferers", "transforms"))
    transform = transforms.Compose(
        [
            transforms.LoadImaged("image", reader="NibabelReader"),
            transforms.EnsureChannelFirstd("image"),
            transforms.CropForegroundd("image", source_key="image", allow_smaller=True),
            transforms.Orientationd("image", axcodes="RAS", labels=None),
            transforms.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
            transforms.DivisiblePadd("image", k=(32, 32, 1), method="end"),
        ]
    )

    @torch.inference_mode()
    def run(files: CaseFiles, path: Path) -> None:
        image = transform({"image": [files.images[name].path for name in MODALITIES]})["image"]
        inferer = inferers.SliceInferer(
            roi_size=image.shape[1:3], sw_batch_size=BATCH_SIZE, spatial_dim=2, overlap=0
        )
        with autocast(precision, CPU):
            logits = inferer(image.as_tensor()[None], _channels_last(network))
        labels = data.MetaTensor(
            label_map(logits.moveaxis(4, 1)[0] > 0).moveaxis(0, 2)[None],
            meta=image.meta,
            applied_operations=image.applied_operations,
        )
        whole = transform.inverse({"image": labels})["image"]
        codes = data.MetaTensor(
            torch.from_numpy(CODINGS[files.coding].encode(whole.as_tensor().to(torch.uint8).numpy())),
            meta=whole.meta,
        )
        save = transforms.SaveImage(output_ext=".nii.gz", output_dtype=np.uint8, resample=False, print_log=False)
        save(codes, filename=str(path).removesuffix(".nii.gz"))

    return run


def _channels_last(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network, given its windows in the memory format that is fastest for it."""
    return lambda windows: network(windows.contiguous(memory_format=torch.channels_last))


def dice_of(files: CaseFiles, path: Path) -> list[float]:
    """Dice of WT, TC and ET of a written mask."""
    assert files.segmentation is not None
    reference = read_segmentation(files.segmentation, files.coding)
    predicted = read_segmentation(FileInfo(str(path), path.stat().st_size), files.coding)
    # Any axes would do: Dice is the same.
    found = case_metrics(count_overlap(reference.labels, predicted.labels, reference.grid.spacing_xyz_mm))
    return [found[region]["dice"] for region in REGIONS]


def agree(cases: Sequence[CaseFiles], sides: dict[str, Side], tolerance: float) -> dict[str, str]:
    """No side finds the tumours better than ours, by the mean Dice of all cases and regions; return all Dice.

    Those that see the same crop find them equally well. A network that was trained on crops is worse on whole
    slices: the notebook way may only lose by that.
    """
    dice: dict[str, list[float]] = {name: [] for name in sides}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mask.nii.gz"
        for files in cases:
            for name, run in sides.items():
                run(files, path)
                dice[name] += dice_of(files, path)
    means = {name: float(np.mean(values)) for name, values in dice.items()}
    for name, mean in means.items():
        check_close(
            "mean Dice", means["ours"], name, max(mean, means["ours"]) if name == NOTEBOOK else mean, tolerance
        )
    return {name: f"mean Dice {means[name]:.4f} ({_listed(values)})" for name, values in dice.items()}


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def measure_sides(network: nn.Module, inputs: InputSpec, quick: bool) -> Outcome:
    """The sides on one phantom. (On real cases a network that knows phantoms alone has no Dice to compare.)"""
    cases = phantoms(1 if quick else 3)
    warm(cases)
    precision = choose_precision("auto", CPU)
    sides = {
        "ours": our_way(network, inputs, precision),
        "MONAI SliceInferer": monai_way(network, precision),
        "MONAI SliceInferer, fp32": monai_way(network, "fp32"),
        NOTEBOOK: notebook_way(network),
    }
    dice = agree(cases, sides, QUICK_DICE if quick else SAME_DICE)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "timed.nii.gz"
        seconds = interleaved(
            {name: functools.partial(run, cases[0], path) for name, run in sides.items()}, 1 if quick else 5
        )
    targets = {"MONAI SliceInferer": 1.5, "MONAI SliceInferer, fp32": None, NOTEBOOK: 3.0}
    stage = f"predict a case, {precision}"
    rows = [
        compare(stage, seconds["ours"], name, seconds[name], "s", target=target) for name, target in targets.items()
    ]
    return Outcome(rows=rows, details={**dice, stage: spreads(seconds, "s")})


def measure_overlap(run: Path, quick: bool) -> tuple[Row, str]:
    """Wall time against CPU seconds over cores of `jobs/predict.py`, per further case: its start does not count."""
    few, many = (1, 2) if quick else (4, 24)
    short, long = [], []
    for _ in range(1 if quick else 2):
        short.append(_predict(run, few))
        long.append(_predict(run, many))
    n_cores, n_more = len(os.sched_getaffinity(0)), (many - few) * len(long)
    short_s, long_s = (sum(usage.wall_s for usage in usages) for usages in (short, long))
    wall_s = (long_s - short_s) / n_more
    cpu_s = (sum(usage.cpu_s for usage in long) - sum(usage.cpu_s for usage in short)) / n_more
    check_growth("predict", min(wall_s, cpu_s))
    if cpu_s / n_cores > MOST_CPU * wall_s:
        raise BenchmarkError(
            f"predict: a further case took {cpu_s:.2f} CPU seconds in {wall_s:.2f} s on {n_cores} cores, which "
            "cannot be; measure again on an idle machine"
        )
    row = compare(
        "predict, stages overlapped", wall_s, LIMIT + "CPU seconds over cores", cpu_s / n_cores, "s", target=OVERLAP
    )
    start_s = short_s / len(short) - few * wall_s
    return row, f"{wall_s:.2f} s wall and {cpu_s:.2f} s CPU a case; start and end {start_s:.1f} s"


def _predict(run: Path, n_cases: int) -> Usage:
    """`jobs/predict.py` on so many cases."""
    with copies(phantoms(4), n_cases) as data, TemporaryDirectory() as out:
        return watch(
            job_command("predict", "--model", str(run), "--data", data, "--out", out, "--nifti", "--device", "cpu")
        )


def measure(quick: bool) -> Outcome:
    require("monai")
    run = trained_run(prepared_thin(), "demo", 1) if quick else trained_run(prepared(6), "brats", 3)
    network, card = load_bundle(find_bundle(str(run)))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    outcome = measure_sides(network, card.inputs, quick)
    row, said = measure_overlap(run, quick)
    return Outcome(rows=[*outcome.rows, row], details={**outcome.details, "overlap": said})


if __name__ == "__main__":
    run_benchmark(measure)
