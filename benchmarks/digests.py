"""SHA-256 of all that the jobs write for a tiny fixed dataset, to show that a refactoring moved nothing.

    python benchmarks/digests.py CHECKOUT > before.txt

runs the jobs of a checkout of this project at any commit, on CPUs in fp32 with a fixed seed, and prints one line
per content: a column of a table, a tensor of the model, a mask. Two commits whose lines are equal do the same. Left
out is what differs between two runs of one commit (times, paths, versions) and the prose in the metadata. The
script imports nothing of the project, so that one copy of it serves every commit.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import safetensors.numpy

MODALITIES = ("flair", "t1", "t1ce", "t2")
N_CASES = 8
SHAPE = (40, 36, 16)
AFFINE = np.diag([-1.0, -1.0, 1.5, 1.0])  # as BraTS stores volumes, but with thicker slices
NETWORK = [
    *["--encoder", "tu-test_resnet", "--decoder-channels", *["8"] * 5, "--epochs", "2", "--warmup-steps", "2"],
    *["--batch-size", "8", "--micro-batch-size", "4", "--precision", "fp32", "--device", "cpu", "--nifti"],
]
MEASURED = {"slices_per_s", "data_wait_s", "train_s", "elapsed_s", "peak_memory_mb", "path", "sources"}


def write_case(root: Path, number: int) -> None:
    """A ball of brain with a tumour of three nested balls; a third of the cases have no enhancing tumour."""
    random = np.random.default_rng(number)
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij"), axis=-1)
    centre = np.array(SHAPE) / 2
    brain = (((grid - centre) / (0.45 * np.array(SHAPE))) ** 2).sum(-1) < 1
    distance = np.sqrt(((grid - centre - random.uniform(-3, 3, 3)) ** 2).sum(-1))
    labels = np.zeros(SHAPE, np.uint8)
    for radius, code in ((6, 2), (4, 4 if number % 3 else 1), (2, 1)):
        labels[distance < radius] = code
    name = f"BraTS20_Training_{number:03d}"
    (root / name).mkdir(parents=True)
    nib.save(nib.Nifti1Image(labels, AFFINE), root / name / f"{name}_seg.nii.gz")
    for channel, modality in enumerate(MODALITIES):
        values = 300 + 60 * channel + 90.0 * labels + random.normal(0, 20, SHAPE)
        image = np.where(brain, values.clip(1), 0).astype(np.int16)
        nib.save(nib.Nifti1Image(image, AFFINE), root / name / f"{name}_{modality}.nii.gz")


def run_job(checkout: Path, job: str, *options: object) -> None:
    command = [sys.executable, str(checkout / "jobs" / f"{job}.py"), *map(str, options)]
    variables = {**os.environ, "PYTHONPATH": str(checkout)}
    # In the checkout, because Ray puts the working folder first on the path of its processes.
    done = subprocess.run(command, cwd=checkout, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def json_sha256(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=bytes.hex).encode())


def digests(path: Path) -> Iterator[tuple[str, str]]:
    """Name and digest of each part of a file; none for a file of a kind that may change its form."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        for name in table.column_names:
            if name not in MEASURED:
                yield f"{name} {table.schema.field(name).type}", json_sha256(table[name].to_pylist())
        described = json.loads(table.schema.metadata[b"brats"]).get("case", {})
        for name in sorted(described):
            yield f"footer {name}", json_sha256(described[name])
    elif path.suffix == ".safetensors":
        for name, tensor in sorted(safetensors.numpy.load_file(path).items()):
            yield f"{name} {tensor.shape}", sha256(tensor.tobytes())
    elif path.suffix == ".gz":
        image = nib.load(path)
        yield "voxels", sha256(np.asanyarray(image.dataobj).tobytes())
        yield "header", sha256(image.header.binaryblock)


def main(checkout: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cases, prepared, one = root / "cases", root / "prepared", root / "one"
        for number in range(1, N_CASES + 1):
            write_case(cases, number)
        run_job(checkout, "prepare", "--data", cases, "--out", prepared, "--test-fraction", 0.25)
        run_job(checkout, "train", "--data", prepared, "--out", one, "--workers", 1, *NETWORK)
        run_job(checkout, "train", "--data", prepared, "--out", root / "two", "--workers", 2, *NETWORK)
        own_masks = root / "predicted" / "nifti"
        run_job(checkout, "predict", "--model", one, "--data", cases, "--out", own_masks.parent, "--nifti")
        run_job(
            checkout, "evaluate", "--predictions", own_masks, "--references", cases, "--out", root / "evaluated"
        )
        for path in sorted(root.rglob("*")):
            place = path.relative_to(root)
            if path.is_file() and place.parts[0] != "cases" and "parts" not in place.parts:
                for name, digest in digests(path):
                    print(f"{digest}  {place}  {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
