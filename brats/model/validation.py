"""Validation: loss, 3-D Dice and voxel accuracy of a network on whole cases.

Axes: `B` slices of a batch, `R` region (of `REGIONS`), `Z H W` slices of a crop.

Cases are read here, by the training process itself, and not by Ray Data: a rank scores whole cases, so each has
just one reader, and which rank scores which case must not depend on a stream.
"""

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brats.data.batches import InputSpec
from brats.data.planes import in_plane
from brats.data.slices import open_slices
from brats.labels import REGIONS
from brats.model.decoding import label_map
from brats.model.distributed import Worker, all_reduce_sum
from brats.model.history import HistoryRow, dice_column
from brats.model.inference import BATCH_SIZES, Segmenter, halving
from brats.model.inputs import RawCase
from brats.model.losses import Loss, region_targets
from brats.model.memory import free_bytes
from brats.model.prefetch import use_device

VALIDATION_SHARE = 0.1  # of the memory that is free when training starts, for the cases to be kept in


@dataclass(frozen=True, kw_only=True)
class ValidationCase:
    """A case to validate on: its slices as stored, and its labels (Z, H, W), in the plane of the network."""

    raw: RawCase
    labels: Tensor

    @property
    def nbytes(self) -> int:
        return self.raw.images.nbytes + self.raw.numbers.nbytes + self.labels.nbytes


class ValidationCases:
    """The validation cases of a rank, on its device, in the same order each time.

    Each is read once and kept, as stored, while the kept ones fit in their share of the memory that was free at
    first: of the GPU, or of the host for CPUs. The others are read each time. A thread reads a case while the
    network computes on the one before.
    """

    def __init__(self, paths: Sequence[str], inputs: InputSpec, device: torch.device) -> None:
        self.paths = paths
        self._inputs, self._device = inputs, device
        self._kept: dict[str, ValidationCase] = {}
        self._room = int(VALIDATION_SHARE * free_bytes(device))

    def __iter__(self) -> Iterator[ValidationCase]:
        """The cases, in order. Raises StorageError naming the file that cannot be read."""
        unread = iter([path for path in self.paths if path not in self._kept])
        with ThreadPoolExecutor(1, initializer=use_device, initargs=(self._device,)) as thread:
            coming = self._read_next(thread, unread)
            for path in self.paths:
                case = self._kept.get(path)
                if case is None:
                    assert coming is not None  # as many are read as are not kept
                    read = coming.result()
                    coming = self._read_next(thread, unread)
                    case = self._place(read)
                    self._keep(path, case)
                yield case

    def _read_next(self, thread: ThreadPoolExecutor, unread: Iterator[str]) -> Future[ValidationCase] | None:
        path = next(unread, None)
        return thread.submit(self._read, path) if path else None

    def _read(self, path: str) -> ValidationCase:
        """A case on the host."""
        case = open_slices(path).read_case(self._inputs.modalities)
        assert case.labels is not None  # only labelled cases are split
        raw = RawCase.of(case, self._inputs, pinned=self._device.type == "cuda")
        labels = np.ascontiguousarray(in_plane(case.labels, self._inputs.plane))
        return ValidationCase(raw=raw, labels=torch.from_numpy(labels))

    def _place(self, case: ValidationCase) -> ValidationCase:
        """The same on the device."""
        return ValidationCase(raw=case.raw.to(self._device), labels=case.labels.to(self._device, non_blocking=True))

    def _keep(self, path: str, case: ValidationCase) -> None:
        if case.nbytes <= self._room:
            self._room -= case.nbytes
            self._kept[path] = case


def validate(segmenter: Segmenter, loss: Loss, worker: Worker, cases: ValidationCases) -> HistoryRow:
    """Loss and 3-D Dice, means over the cases of all ranks, and the accuracy over all their voxels in the crops.

    The Dice of regions that the network does not predict is None. It waits for the device once, at the end.
    """
    segmenter.network.eval()
    batch_size = BATCH_SIZES[segmenter.device.type]
    sums = torch.zeros(4 + len(REGIONS), dtype=torch.float64, device=segmenter.device)
    for case in cases:
        figures, batch_size = halving(functools.partial(case_figures, segmenter, loss, case), batch_size)
        sums[0] += 1
        sums[1:] += figures
    n_cases, loss_sum, n_correct, n_voxels, *dice = all_reduce_sum(sums.tolist(), worker)
    means = [value / n_cases for value in dice]
    of_region = {region: mean for region, mean in zip(REGIONS, means, strict=True) if region in segmenter.regions}
    return {
        "val_loss": loss_sum / n_cases,
        "val_accuracy": n_correct / n_voxels,
        "val_dice": sum(of_region.values()) / len(of_region),
        **{dice_column(region): of_region.get(region) for region in REGIONS},
    }


def case_figures(segmenter: Segmenter, loss: Loss, case: ValidationCase, batch_size: int) -> Tensor:
    """Loss, correct voxels, voxels, and 3-D Dice of `REGIONS` of a case inside its crop; float64, (3 + R).

    The loss takes the slices of the case as one batch: slice batch by slice batch it would be ruled by the batches
    without tumour, whose soft Dice is next to 0. The Dice is that of the written label map, as `score.metrics` has
    it: 1 where both masks are empty. Correct are voxels with the label that a perfect
    network would predict. Expects the network in evaluation mode.
    """
    logits = torch.cat(list(segmenter.logits(case.raw, batch_size)))
    labels = label_map(segmenter.outputs.masks(logits))
    predicted, targets = region_targets(labels), region_targets(case.labels)
    overlap = (predicted * targets).sum((0, 2, 3), dtype=torch.float64)
    total = (predicted + targets).sum((0, 2, 3), dtype=torch.float64)
    dice = torch.where(total > 0, 2 * overlap / total, 1.0)
    n_correct = (labels == segmenter.outputs.predictable(case.labels)).sum()
    n_voxels = torch.full_like(n_correct, labels.numel())
    mean_loss = loss(logits, segmenter.outputs.targets(case.labels))
    return torch.cat([torch.stack([mean_loss.double(), n_correct.double(), n_voxels.double()]), dice])
