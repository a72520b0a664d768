"""Samples of slices as the network sees them: normalised, and augmented as training augments them.

Axes: `N` samples, `C` modality, `H W` slice axes.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from brats.config import Augmentation
from brats.data.batches import InputSpec
from brats.data.case import Case
from brats.data.planes import in_plane
from brats.model.augment import noise_table
from brats.model.augment_draw import draw
from brats.model.feed import RawSlices
from brats.model.inputs import RawCase, normalise, training_tensors

Slices = npt.NDArray[np.float32]


def sample_slices(
    case: Case, inputs: InputSpec, *, kind: Augmentation, modality_dropout: float, seed: int, n_samples: int
) -> tuple[Slices, Slices]:
    """The slice of a case with most tumour: normalised (C, H, W), and as it is augmented (N, C, H, W).

    The samples are those that a run of this seed would draw for the slice in its first epoch, as it comes for the
    first time, the second, and on. Neighbours and computed channels are left out. Raises CaseError naming a
    modality that the case lacks; the case must have labels.
    """
    assert case.labels is not None, f"{case.case_id} has no labels"
    inputs = replace(inputs, context=0, extra=())
    labels = in_plane(case.labels, inputs.plane)
    row = int(np.count_nonzero(labels, axis=(1, 2)).argmax())
    raw = RawCase.of(case, inputs, pinned=False)
    images = normalise(raw.images[row : row + 1], *raw.numbers[:, row : row + 1])
    parameters = torch.from_numpy(
        draw(
            [(case.case_id, row)] * n_samples,
            seed=seed,
            epoch=1,
            n_channels=images.shape[1],
            kind=kind,
            modality_dropout=modality_dropout,
        )
    )
    slices = RawSlices(
        images=raw.images[[row] * n_samples],
        labels=torch.zeros(n_samples, *images.shape[2:], dtype=torch.uint8),
        numbers=raw.numbers[:, [row] * n_samples].movedim(1, 0),
        parameters=parameters,
    )
    noise = noise_table(seed, torch.device("cpu"))
    augmented, _ = training_tensors(slices, noise, kind, inputs, drops=modality_dropout > 0)
    height, width = raw.size
    return images[0, :, :height, :width].numpy(), augmented[:, :, :height, :width].numpy()
