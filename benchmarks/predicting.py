"""Claim 4: a case from its files to a written mask, by one network in three ways; and how well the stages overlap.

Axes: `C` modality, `R` region, `X Y Z` voxel axes, `B H W` slices of a batch.
"""

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
from benchmarks.harness import LIMIT, Outcome, Row, check_close, compare, interleaved, peer_module, require, spreads
from benchmarks.sources import copies, job_command, prepared, prepared_thin, sources, trained_run, warm
from benchmarks.watch import watch
from brats import storage
from brats.config import MODALITIES, Precision
from brats.data.cases import CaseFiles
from brats.data.preprocess import read_case
from brats.data.volume import nifti_bytes, read_labels
from brats.labels import REGIONS, encode_labels
from brats.model.bundle import find_bundle, load_bundle
from brats.model.inference import label_map, predict_labels
from brats.model.precision import autocast, choose_precision
from brats.score.metrics import case_metrics
from brats.storage import FileInfo

BATCH_SIZE = 16
SAME_DICE = 0.002
OVERLAP = 1 / 1.15
CPU = torch.device("cpu")

Side = Callable[[CaseFiles, Path], None]
"""Predicts a case and writes its mask to a .nii.gz file."""


def our_way(network: nn.Module, divisor: int, precision: Precision) -> Side:
    """What the three steps of the pipeline do."""

    def run(files: CaseFiles, path: Path) -> None:
        case = read_case(files, MODALITIES)
        labels = predict_labels(
            network,
            case,
            modalities=MODALITIES,
            thresholds=[0.5] * len(REGIONS),
            divisor=divisor,
            batch_size=BATCH_SIZE,
            device=CPU,
            precision=precision,
        )
        storage.write_bytes(str(path), nifti_bytes(case.uncropped(labels), case.grid, case.layout))

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
        codes = encode_labels(nib.orientations.apply_orientation(labels, turn), files.layout)
        nib.save(nib.Nifti1Image(codes, first.affine), path)

    return run


def _normalised(image: Any) -> Any:
    brain = image != 0
    values = image[brain]
    image[brain] = (values - values.mean()) / values.std()
    return image


def monai_way(network: nn.Module, precision: Precision) -> Side:
    """MONAI's transforms, its SliceInferer (the SlidingWindowInferer for 2-D networks on volumes), and SaveImage.

    At its best: cropped to the foreground in multiples of what the network divides, so that every slice is one
    window and nothing is computed twice; as many windows at a time as we take slices; the same arithmetic.
    """
    data, inferers, transforms = (peer_module(f"monai.{room}") for room in ("data", "inferers", "transforms"))
    transform = transforms.Compose(
        [
            transforms.LoadImaged("image", reader="NibabelReader"),
            transforms.EnsureChannelFirstd("image"),
            transforms.CropForegroundd("image", source_key="image", k_divisible=(32, 32, 1)),
            transforms.Orientationd("image", axcodes="RAS", labels=None),
            transforms.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
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
            torch.from_numpy(encode_labels(whole.as_tensor().to(torch.uint8).numpy(), files.layout)),
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
    reference, grid = read_labels(files.segmentation, files.layout)
    predicted, _ = read_labels(FileInfo(str(path), path.stat().st_size), files.layout)
    found = case_metrics(reference, predicted, grid.spacing_mm)
    return [found[region]["dice"] for region in REGIONS]


def agree(files: CaseFiles, sides: dict[str, Side], folder: Path) -> dict[str, str]:
    """Every side finds the tumours equally well; return the Dice of each."""
    found = {}
    for name, run in sides.items():
        path = folder / f"{name}.nii.gz"
        run(files, path)
        found[name] = dice_of(files, path)
    for name, dice in found.items():
        check_close(f"{files.case_id}: Dice of WT, TC, ET", found["ours"], name, dice, SAME_DICE)
    return {name: ", ".join(f"{value:.4f}" for value in dice) for name, dice in found.items()}


def measure_sides(network: nn.Module, divisor: int, quick: bool) -> Outcome:
    rows: list[Row] = []
    details: dict[str, Any] = {}
    precision = choose_precision("auto", CPU)
    sides = {
        "ours": our_way(network, divisor, precision),
        "MONAI SliceInferer": monai_way(network, precision),
        "MONAI SliceInferer, fp32": monai_way(network, "fp32"),
        "notebook": notebook_way(network),
    }
    targets = {"MONAI SliceInferer": 1.5, "MONAI SliceInferer, fp32": None, "notebook": 3.0}
    for source in [Source("phantom", phantoms(1))]:
        warm(source.cases)
        with TemporaryDirectory() as name:
            folder = Path(name)
            for files in source.cases:
                details[f"Dice, {files.case_id}"] = agree(files, sides, folder)
            runs = {name: _over(source.cases, run, folder) for name, run in sides.items()}
            seconds = interleaved(runs, 1 if quick else 3)
        times = {name: spread.scaled(1 / len(source.cases)) for name, spread in seconds.items()}
        stage = f"predict a {source.name} case, {precision}"
        rows += [
            compare(stage, times["ours"], name, times[name], "s", target=target) for name, target in targets.items()
        ]
        details[stage] = spreads(times, "s")
    return Outcome(rows=rows, details=details)


def _over(cases: Sequence[CaseFiles], run: Side, folder: Path) -> Callable[[], None]:
    def run_all() -> None:
        for files in cases:
            run(files, folder / "timed.nii.gz")

    return run_all


def measure_overlap(run: Path, quick: bool) -> tuple[Row, str]:
    """Wall time against CPU seconds over cores of `jobs/predict.py`, per further case: its start does not count."""
    few, many = (1, 2) if quick else (4, 12)
    usages = []
    for n_cases in (few, many):
        with copies(sources(1)[0].cases, n_cases) as data, TemporaryDirectory() as out:
            command = job_command(
                "predict", "--model", str(run), "--data", data, "--out", out, "--nifti", "--device", "cpu"
            )
            usages.append(watch(command))
    n_cores, more = len(os.sched_getaffinity(0)), many - few
    wall_s = (usages[1].wall_s - usages[0].wall_s) / more
    cpu_s = (usages[1].cpu_s - usages[0].cpu_s) / more
    row = compare(
        "predict, stages overlapped", wall_s, LIMIT + "CPU seconds over cores", cpu_s / n_cores, "s", target=OVERLAP
    )
    return (
        row,
        f"{wall_s:.2f} s wall and {cpu_s:.2f} s CPU a case; start and end {usages[0].wall_s - few * wall_s:.1f} s",
    )


def measure(quick: bool) -> Outcome:
    require("monai")
    run = trained_run(prepared_thin(), "demo", 1) if quick else trained_run(prepared(6), "brats", 3)
    network, card = load_bundle(find_bundle(str(run)))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    outcome = measure_sides(network, card.divisor, quick)
    row, said = measure_overlap(run, quick)
    return Outcome(rows=[*outcome.rows, row], details={**outcome.details, "overlap": said})


if __name__ == "__main__":
    run_benchmark(measure)
