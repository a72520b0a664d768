"""Recognition, segmentation and panoptic quality of lesions, as the code of BraTS 2025/26 defines them.

Axes: `X Y Z` the voxel axes of the masks, in any order.

Source: panoptica 2.1.4 (https://github.com/BrainLesion/panoptica) as the configurations of BraTS-evaluation 0.0.10
set it up for every challenge but MenRT. Components are not dilated, and none is too small. Each component of the
reference is matched with one component of the prediction at most, so that the sum of their Dice is largest.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from brats.score.components import Components, Ints, RegionPair, count_pairs, find_components, union_box
from brats.score.lesions import Lesion, LesionMetric, count, count_metrics, mean
from brats.score.voxel_surface import VoxelSurfaces, compare_voxel_surfaces

Floats = npt.NDArray[np.float64]

NONE_FOUND_HD95_MM = 373.0  # stands for infinity, "diameter of the cube in SRI space"
SMALLEST_DICE = 1e-6  # of a pair that may be matched, `matching_threshold`
UNMATCHED_COST = 1 + 1e-6  # of a component without a match, beside 1 - Dice of a match


def lesions_2026(regions: RegionPair) -> list[Lesion]:
    """The lesions of a region: the components of the reference, then those of the prediction without a match."""
    reference, predicted = find_components(regions.reference), regions.predicted
    pairs, n_both = count_pairs(reference.numbers, predicted)
    dice = 2 * n_both / (reference.n_voxels[pairs[:, 0]] + predicted.n_voxels[pairs[:, 1]])
    matched = match(pairs, dice, reference.n, predicted.n)
    found = {int(pairs[index, 0]): (int(pairs[index, 1]), float(dice[index])) for index in matched}
    false = np.setdiff1d(np.arange(1, predicted.n + 1), pairs[matched, 1])
    return [
        *_reference_lesions(regions, reference, found),
        *(Lesion("false", *regions.place(predicted, number)) for number in false.tolist()),
    ]


def match(pairs: Ints, dice: Floats, n_reference: int, n_predicted: int) -> Ints:
    """The pairs of the one-to-one matching with the least cost, as indices; of equal ones any.

    pairs: (P, 2), numbers from 1 of a component of the reference and of one of the prediction
    dice:  (P,)

    Every component of the reference may also be matched with a stand-in of its own, at UNMATCHED_COST, so that a
    full matching exists and memory grows with the pairs that overlap alone.
    """
    able = np.flatnonzero(dice >= SMALLEST_DICE)
    if not able.size:
        return able
    rows = np.concatenate([pairs[able, 0] - 1, np.arange(n_reference)])
    columns = np.concatenate([pairs[able, 1] - 1, n_predicted + np.arange(n_reference)])
    costs = 1 + np.concatenate([1 - dice[able], np.full(n_reference, UNMATCHED_COST)])  # 0 would be no edge
    graph = coo_array((costs, (rows, columns)), shape=(n_reference, n_predicted + n_reference)).tocsr()
    chosen_rows, chosen_columns = min_weight_full_bipartite_matching(graph)
    partner = np.zeros(n_reference, np.int64)
    partner[chosen_rows] = chosen_columns + 1
    return np.asarray(able[partner[pairs[able, 0] - 1] == pairs[able, 1]])


def _reference_lesions(
    regions: RegionPair, reference: Components, found: dict[int, tuple[int, float]]
) -> Iterator[Lesion]:
    """The components of the reference; of those that were found partner and Dice are given."""
    for number in range(1, reference.n + 1):
        place = regions.place(reference, number)
        if number in found:
            partner, dice = found[number]
            surfaces = _surfaces(regions, reference, number, partner)
            yield Lesion("found", *place, dice, surfaces.hd95_mm, surfaces.surface_dice)
        else:
            yield Lesion("missed", *place)


def _surfaces(regions: RegionPair, reference: Components, number: int, partner: int) -> VoxelSurfaces:
    predicted = regions.predicted
    box = union_box([reference.boxes[number - 1], predicted.boxes[partner - 1]])
    masks = reference.numbers[box] == number, predicted.numbers[box] == partner
    return compare_voxel_surfaces(*masks, regions.spacing_mm)


def _f1(lesions: Sequence[Lesion]) -> float | None:
    n_found = count(lesions, "found")
    return n_found / (n_found + count(lesions, "missed", "false") / 2) if lesions else None


def _mean_of(
    score: Callable[[Lesion], float | None], none_found: float
) -> Callable[[Sequence[Lesion]], float | None]:
    """The mean over the lesions that were found: `none_found` where there are others alone, None where none is."""

    def value(lesions: Sequence[Lesion]) -> float | None:
        found = [lesion for lesion in lesions if lesion.status == "found"]
        if found:
            return mean(map(score, found))
        return none_found if lesions else None

    return value


_mean_dice = _mean_of(lambda lesion: lesion.dice, 0.0)


def _panoptic_quality(lesions: Sequence[Lesion]) -> float | None:
    f1, dice = _f1(lesions), _mean_dice(lesions)
    return None if f1 is None or dice is None else f1 * dice


_UNDEFINED = "null where neither mask has a lesion"
METRICS_2026 = (
    LesionMetric("f1_2026", f"recognition quality: found / (found + missed / 2 + false / 2); {_UNDEFINED}", _f1),
    LesionMetric(
        "lesion_dice_2026",
        f"segmentation quality: mean Dice of the lesions that were found, alone; 0 where none was, {_UNDEFINED}",
        _mean_dice,
    ),
    LesionMetric("panoptic_quality_2026", f"f1_2026 x lesion_dice_2026; {_UNDEFINED}", _panoptic_quality),
    LesionMetric(
        "lesion_hd95_mm_2026",
        "mean HD95 of the lesions that were found, alone: distances between outermost voxels, both directions "
        f"pooled, unweighted; {NONE_FOUND_HD95_MM:g} (for infinity) where none was, {_UNDEFINED}",
        _mean_of(lambda lesion: lesion.hd95_mm, NONE_FOUND_HD95_MM),
    ),
    LesionMetric(
        "lesion_surface_dice_2026",
        "likewise of the surface Dice: share of outermost voxels at most the smallest spacing away, mean of both "
        f"directions, unweighted, so not that of google-deepmind/surface-distance; 0 where none was, {_UNDEFINED}",
        _mean_of(lambda lesion: lesion.surface_dice, 0.0),
    ),
    *count_metrics(2026),
)
