"""Batches of slices: what the network's channels are, and the one place where slices are put together for it.

Axes: `B` slices of a batch, `C` channel, `H W` slice axes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from brats import storage
from brats.config import TrainConfig
from brats.data.case import Array, Case, Intensity
from brats.data.dataset import slices_path
from brats.data.epoch import EpochPlan, PlannedBatch, shard
from brats.data.pool import TrainingVolume
from brats.data.slices import open_slices
from brats.errors import StorageError
from brats.labels import Labels

DIVISOR = 32  # of the height and width of a slice: five halvings of an encoder
READERS = 16  # requests under way at once for one batch

Floats = npt.NDArray[np.float32]
Empty = Callable[[tuple[int, ...], npt.DTypeLike], Array]
"""Makes an array of this shape and dtype, with any content."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What the network sees: the channels of its input and the sizes it takes.

    modalities: one channel each, in this order
    divisor:    of height and width, to which slices are padded; no size is fixed
    """

    modalities: tuple[str, ...]
    divisor: int = DIVISOR

    @classmethod
    def of(cls, config: TrainConfig) -> Self:
        """The input of the network that a configuration trains."""
        return cls(modalities=config.modalities)

    @property
    def n_channels(self) -> int:
        return len(self.modalities)

    def padded_size(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """The smallest (H, W) that holds all of these and that the divisor divides."""
        height, width = (math.ceil(max(edges) / self.divisor) * self.divisor for edges in zip(*sizes, strict=True))
        return height, width

    @classmethod
    def required_fields(cls) -> list[str]:
        return [field.name for field in fields(cls) if field.default is MISSING]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, also after a passage through JSON text.

        A field with a default may be missing, as in a model of before it was added.
        """
        return cls(**{**value, "modalities": tuple(value["modalities"])})


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Neighbouring slices of one case, as a batch takes them in.

    channels:    raw values (n, H, W) of each channel
    intensities: of each channel
    """

    channels: Sequence[Array]
    intensities: Sequence[Intensity]


@dataclass(frozen=True, kw_only=True)
class SliceBatch:
    """Slices padded to one size with each image's background: all that the network's input is computed from.

    images: (B, C, H, W), raw values: int16 where all fit, else float32
    offset, scale: (B, C); the input is `(raw - offset) / scale`
    background, tolerance: (B, C); it is 0 where `|raw - background| <= tolerance`
    """

    images: Array
    offset: Floats
    scale: Floats
    background: Floats
    tolerance: Floats


def stack_slices(stacks: Sequence[Stack], size: tuple[int, int], empty: Empty = np.empty) -> SliceBatch:
    """The slices of all stacks, one behind the other, padded at the end of H and W to this size.

    empty: makes the array of the images
    """
    counts = [len(stack.channels[0]) for stack in stacks]
    intensities = [stack.intensities for stack in stacks]
    dtype = common_dtype({item.dtype for items in intensities for item in items})
    images = empty((sum(counts), len(intensities[0]), *size), dtype)
    first = 0
    for stack, count in zip(stacks, counts, strict=True):
        for channel, (raw, intensity) in enumerate(zip(stack.channels, stack.intensities, strict=True)):
            height, width = raw.shape[1:]
            padded = images[first : first + count, channel]
            padded[:, height:] = padded[:, :, width:] = intensity.background
            padded[:, :height, :width] = raw
        first += count
    numbers = np.repeat(np.stack([channel_numbers(items) for items in intensities]), counts, axis=0)
    offset, scale, background, tolerance = np.moveaxis(numbers, 1, 0).copy()
    return SliceBatch(images=images, offset=offset, scale=scale, background=background, tolerance=tolerance)


def channel_numbers(intensities: Sequence[Intensity]) -> Floats:
    """Offset, scale, background and tolerance of each channel, (4, C), see `SliceBatch`."""
    numbers = [(*item.raw_offset_scale(), item.background, item.tolerance) for item in intensities]
    return np.array(numbers, np.float32).T


def case_slices(case: Case, inputs: InputSpec, empty: Empty = np.empty) -> SliceBatch:
    """All slices of a case, in order, padded to the divisor.

    empty: makes the array of the images

    Raises CaseError naming the modality that the case lacks.
    """
    images = case.only(inputs.modalities).images
    stack = Stack(
        channels=[images[name] for name in inputs.modalities],
        intensities=[case.intensities[name] for name in inputs.modalities],
    )
    return stack_slices([stack], inputs.padded_size([case.box.shape[:2]]), empty)


def common_dtype(dtypes: set[str]) -> npt.DTypeLike:
    """The narrower of int16 and float32 that holds all of these dtypes (float32: to its precision)."""
    return np.int16 if all(np.can_cast(np.dtype(name), np.int16) for name in dtypes) else np.float32


@dataclass(frozen=True, kw_only=True)
class WorkerBatch:
    """One rank's shard of the global batch of an optimiser step.

    first:    position of its first slice in the global batch
    n_global: slices of the global batch
    slices:   what the input is computed from
    labels:   (B, H, W), 0 in the padding
    """

    epoch: int
    step: int
    first: int
    n_global: int
    slices: SliceBatch
    labels: Labels

    def to_row(self) -> dict[str, Any]:
        """As a row of a Ray dataset: arrays as plain bytes, with what is needed to read them back."""
        arrays = {field.name: getattr(self.slices, field.name) for field in fields(SliceBatch)}
        return {
            "epoch": self.epoch,
            "step": self.step,
            "first": self.first,
            "n_global": self.n_global,
            "dtype": self.slices.images.dtype.str,
            "shape": list(self.slices.images.shape),
            "labels": self.labels.tobytes(),
            **{name: array.tobytes() for name, array in arrays.items()},
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `to_row`, from a row of Arrow scalars.

        Arrays are copied: torch wants arrays that it may write to, and Ray's memory must be given back soon.
        """

        def array(name: str, dtype: npt.DTypeLike, *shape: int) -> Any:
            return np.frombuffer(row[name].as_buffer(), dtype).reshape(shape).copy()

        n_slices, n_channels, height, width = row["shape"].as_py()
        per_channel = {
            name: array(name, np.float32, n_slices, n_channels)
            for name in ("offset", "scale", "background", "tolerance")
        }
        return cls(
            epoch=row["epoch"].as_py(),
            step=row["step"].as_py(),
            first=row["first"].as_py(),
            n_global=row["n_global"].as_py(),
            slices=SliceBatch(
                images=array("images", row["dtype"].as_py(), n_slices, n_channels, height, width), **per_channel
            ),
            labels=array("labels", np.uint8, n_slices, height, width),
        )


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """The slices that a run trains on: where they lie, when they come, and how they are given to the network.

    Hashable, so that a process keeps the epoch it is reading.

    size:   (H, W) that every slice is padded to
    shapes: (Z, H, W) of each case of the plan, in its order
    """

    prepared: str
    plan: EpochPlan
    inputs: InputSpec
    size: tuple[int, int]
    shapes: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, config: TrainConfig, prepared: str, split: Sequence[Mapping[str, Any]]) -> Self:
        """Of the rows of a run's split."""
        inputs = InputSpec.of(config)
        plan = EpochPlan.of(config, split)
        sizes = [(row["height"], row["width"]) for row in split if row["split"] == "train"]
        shapes = [(len(case.tumour_per_slice), *size) for case, size in zip(plan.cases, sizes, strict=True)]
        size = inputs.padded_size(sizes)
        return cls(prepared=prepared, plan=plan, inputs=inputs, size=size, shapes=tuple(shapes))

    def read_volume(self, case_id: str) -> TrainingVolume:
        """Read a whole case. Raises StorageError for one without segmentation."""
        case = open_slices(slices_path(self.prepared, case_id)).read_case(self.inputs.modalities)
        if case.labels is None:
            raise _unlabelled(slices_path(self.prepared, case_id), case_id)
        intensities = [case.intensities[name] for name in self.inputs.modalities]
        dtype = common_dtype({item.dtype for item in intensities})
        images = np.stack([case.images[name].astype(dtype, copy=False) for name in self.inputs.modalities])
        return TrainingVolume(
            case_id=case_id, images=images, labels=case.labels, numbers=channel_numbers(intensities)
        )

    def read_shard(self, planned: PlannedBatch, rank: int, world_size: int) -> WorkerBatch:
        """Read the slices of a planned batch that one rank takes.

        There must be a slice for every rank. Raises StorageError for a case without segmentation.
        """
        own = shard(planned, rank, world_size)
        read = _read_rows(self.prepared, [planned.slices[index] for index in own], self.inputs)
        labels = np.zeros((len(own), *self.size), np.uint8)
        for position, (_, mask) in enumerate(read):
            height, width = mask.shape
            labels[position, :height, :width] = mask
        return WorkerBatch(
            epoch=planned.epoch,
            step=planned.step,
            first=own.start,
            n_global=len(planned.slices),
            slices=stack_slices([stack for stack, _ in read], self.size),
            labels=labels,
        )


def _read_rows(prepared: str, rows: Sequence[tuple[str, int]], inputs: InputSpec) -> list[tuple[Stack, Labels]]:
    """Each slice (case_id, row) and its labels (H, W); from a store all at once, so that its latencies overlap."""

    def read(entry: tuple[str, int]) -> tuple[Stack, Labels]:
        return _read_slice(slices_path(prepared, entry[0]), entry[1], inputs)

    if not storage.is_remote(prepared):
        return [read(entry) for entry in rows]
    with ThreadPoolExecutor(READERS) as pool:
        paths = {slices_path(prepared, case_id) for case_id, _ in rows}
        list(pool.map(open_slices, paths))  # each once, before its slices
        return list(pool.map(read, rows))


def _read_slice(path: str, row: int, inputs: InputSpec) -> tuple[Stack, Labels]:
    file = open_slices(path)
    images, labels = file.read_slice(row, inputs.modalities)
    if labels is None:
        raise _unlabelled(path, file.case_id)
    intensities = [file.intensities[name] for name in inputs.modalities]
    return Stack(channels=[image[None] for image in images], intensities=intensities), labels


def _unlabelled(path: str, case_id: str) -> StorageError:
    return StorageError(f"{path}: case {case_id} has no segmentation to train on")
