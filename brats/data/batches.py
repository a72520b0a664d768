"""What one worker trains on in an optimiser step: its share of a planned batch, read."""

from collections.abc import Sequence
from dataclasses import dataclass

from brats.data.epoch import PlannedBatch, share
from brats.data.slices import SliceBatch, read_batch


@dataclass(frozen=True, kw_only=True)
class WorkerBatch:
    """One worker's share of an optimiser step.

    first:    position of its first slice in the global batch
    n_global: slices of the global batch
    """

    epoch: int
    step: int
    first: int
    n_global: int
    slices: SliceBatch


def read_share(
    prepared: str,
    planned: PlannedBatch,
    rank: int,
    world_size: int,
    modalities: Sequence[str],
    size: tuple[int, int],
) -> WorkerBatch:
    """Read the slices of a planned batch that one worker takes, padded to the size (H, W).

    There must be a slice for every worker. Raises what `read_batch` raises.
    """
    own = share(planned, rank, world_size)
    return WorkerBatch(
        epoch=planned.epoch,
        step=planned.step,
        first=own.start,
        n_global=len(planned.slices),
        slices=read_batch(prepared, [planned.slices[index] for index in own], modalities, size),
    )
