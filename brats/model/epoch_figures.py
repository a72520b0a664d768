"""Figures of an epoch: the sums over its steps, joined over check points and ranks, divided once."""

from collections.abc import Collection, Sequence

from brats.labels import REGIONS
from brats.model.history import HistoryRow, train_dice_column
from brats.model.sums import StepSums

N_REGIONS = len(REGIONS)


def to_values(sums: StepSums) -> list[float]:
    """The sums as one list of numbers, as ranks add them."""
    counts = (sums.n_slices, sums.n_voxels, sums.n_correct, sums.n_bad)
    return [sums.loss_sum, *counts, *sums.overlap, *sums.total]


def from_values(values: Sequence[float]) -> StepSums:
    """The inverse of `to_values`."""
    loss_sum, n_slices, n_voxels, n_correct, n_bad, *regions = values
    return StepSums(
        loss_sum=loss_sum,
        n_slices=round(n_slices),
        n_voxels=round(n_voxels),
        n_correct=round(n_correct),
        n_bad=round(n_bad),
        overlap=tuple(map(round, regions[:N_REGIONS])),
        total=tuple(map(round, regions[N_REGIONS:])),
    )


def added(parts: Sequence[StepSums]) -> StepSums:
    """The sums over several parts of an epoch; at least one."""
    return from_values([sum(column) for column in zip(*map(to_values, parts), strict=True)])


def figures(sums: StepSums, regions: Collection[str]) -> HistoryRow:
    """Loss, Dice and accuracy of an epoch, by column of its history.

    regions: those that the network predicts; the Dice of others is None
    """
    pairs = zip(sums.overlap, sums.total, strict=True)
    dice = [2 * both / either if either else 1.0 for both, either in pairs]
    of_region = {region: value for region, value in zip(REGIONS, dice, strict=True) if region in regions}
    return {
        "train_loss": sums.loss_sum / sums.n_slices,
        "train_dice": sum(of_region.values()) / len(of_region),
        **{train_dice_column(region): of_region.get(region) for region in REGIONS},
        "train_accuracy": sums.n_correct / sums.n_voxels,
    }
