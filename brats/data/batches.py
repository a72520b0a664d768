"""Batches of slices: what the network's channels are, and the slices that a training takes, read for it.

Axes: `B` slices of a batch, `C` channel, `H W` slice axes.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from brats import storage
from brats.config import EXTRA_CHANNELS, MAX_CONTEXT, ExtraChannel, Plane, TrainConfig
from brats.data.case import Array, Case
from brats.data.dataset import slices_path
from brats.data.epoch import EpochPlan, PlannedBatch, shard
from brats.data.planes import in_plane, shape_in_plane
from brats.data.pool import PoolLayout, TrainingVolume
from brats.data.slices import SliceFile, open_slices
from brats.data.stacks import Empty, SliceBatch, Stack, channel_numbers, common_dtype, stack_slices
from brats.errors import StorageError
from brats.labels import Labels

DIVISOR = 32  # of the height and width of a slice: five halvings of an encoder
READERS = 16  # requests under way at once for one batch


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What the network sees: the channels of its input and the sizes it takes.

    Its first channels are slices of images: of each modality in turn the slice with its neighbours, in the order in
    which they lie. Beyond the first and the last slice of the crop there is background, which is what lies there:
    the crop holds all voxels of the brain.

    modalities: in this order
    divisor:    of height and width, to which slices are padded; no size is fixed
    plane:      of the slices, see `brats.data.planes`
    context:    neighbours of each slice on either side
    extra:      channels computed from those of the slice itself, behind them

    Raises ValueError for values that contradict each other or the limits.
    """

    modalities: tuple[str, ...]
    divisor: int = DIVISOR
    plane: Plane = "axial"
    context: int = 0
    extra: tuple[ExtraChannel, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.context <= MAX_CONTEXT:
            raise ValueError(f"context {self.context}, where 0 to {MAX_CONTEXT} are expected")
        for name in self.extra:
            if not set(EXTRA_CHANNELS[name]) <= set(self.modalities):
                raise ValueError(f"{name} of the modalities {self.modalities}")

    @classmethod
    def of(cls, config: TrainConfig) -> Self:
        """The input of the network that a configuration trains."""
        return cls(
            modalities=config.modalities, plane=config.plane, context=config.context, extra=config.extra_channels
        )

    @property
    def steps(self) -> range:
        """From a slice to it and its neighbours, in the order of the channels of a modality."""
        return range(-self.context, self.context + 1)

    @property
    def n_channels(self) -> int:
        return len(self.modalities) * len(self.steps) + len(self.extra)

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
        lists = {name: tuple(items) for name, items in value.items() if isinstance(items, list)}
        return cls(**{**value, **lists})


def case_slices(case: Case, inputs: InputSpec, empty: Empty = np.empty) -> SliceBatch:
    """All slices of a case in their plane, in order, a channel for each modality, padded to the divisor.

    empty: makes the array of the images

    Raises CaseError naming the modality that the case lacks.
    """
    images = case.only(inputs.modalities).images
    channels = [in_plane(images[name], inputs.plane) for name in inputs.modalities]
    stack = Stack(channels=channels, intensities=[case.intensities[name] for name in inputs.modalities])
    return stack_slices([stack], inputs.padded_size([channels[0].shape[1:]]), empty)


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
    shapes: (Z, H, W) of each case of the plan, in its order, as slices of the plane
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
        shapes = [
            shape_in_plane((len(row["tumour_per_slice"]), row["height"], row["width"]), inputs.plane)
            for row in split
            if row["split"] == "train"
        ]
        size = inputs.padded_size([(height, width) for _, height, width in shapes])
        plan = EpochPlan.of(config, split)
        return cls(prepared=prepared, plan=plan, inputs=inputs, size=size, shapes=tuple(shapes))

    def pool_layout(self) -> PoolLayout:
        """Where its slices lie when they are all kept."""
        return PoolLayout.of([case.case_id for case in self.plan.cases], self.shapes, len(self.inputs.modalities))

    def read_volume(self, case_id: str) -> TrainingVolume:
        """Read a whole case as slices of the plane. Raises StorageError for one without segmentation."""
        case = open_slices(slices_path(self.prepared, case_id)).read_case(self.inputs.modalities)
        if case.labels is None:
            raise _unlabelled(slices_path(self.prepared, case_id), case_id)
        intensities = [case.intensities[name] for name in self.inputs.modalities]
        dtype = common_dtype({item.dtype for item in intensities})
        plane = self.inputs.plane
        images = [in_plane(case.images[name], plane).astype(dtype, copy=False) for name in self.inputs.modalities]
        return TrainingVolume(
            case_id=case_id,
            images=np.stack(images),
            labels=np.ascontiguousarray(in_plane(case.labels, plane)),
            numbers=channel_numbers(intensities),
        )

    def read_shard(self, planned: PlannedBatch, rank: int, world_size: int) -> WorkerBatch:
        """Read the axial slices of a planned batch that one rank takes.

        There must be a slice for every rank. Raises StorageError for a case without segmentation.
        """
        assert self.inputs.plane == "axial"  # as they are stored; `choose_feed` refuses to stream others
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
    around = [_read_images(file, row + step, inputs) if step else images for step in inputs.steps]
    channels = [image[None] for of_modality in zip(*around, strict=True) for image in of_modality]
    intensities = [file.intensities[name] for name in inputs.modalities for _ in inputs.steps]
    return Stack(channels=channels, intensities=intensities), labels


def _read_images(file: SliceFile, row: int, inputs: InputSpec) -> list[Array]:
    """A slice (H, W) of each modality; background where there is no such row."""
    if 0 <= row < file.box.shape[2]:
        return file.read_slice(row, inputs.modalities)[0]
    intensities = [file.intensities[name] for name in inputs.modalities]
    return [np.full(file.box.shape[:2], item.background, item.dtype) for item in intensities]


def _unlabelled(path: str, case_id: str) -> StorageError:
    return StorageError(f"{path}: case {case_id} has no segmentation to train on")
