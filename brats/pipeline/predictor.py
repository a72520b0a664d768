"""The network in a Ray actor: loaded once, it turns case after case into label maps."""

import dataclasses
import functools
from typing import Any, TypeVar

from brats.cluster.per_case import CaseRow, per_case
from brats.cluster.placement import Placement
from brats.config import PredictConfig
from brats.data.case import Case
from brats.errors import CaseError
from brats.labels import Labels

T = TypeVar("T")  # what travels beside a case

REMEDY = "use machines with more memory, or a smaller --batch-size"


class Predictor:
    """Ray step: from a case to its label map.

    counter: the job's count of the attempts at each case, of `attempts.start_counter`
    """

    def __init__(self, config: PredictConfig, placement: Placement, counter: Any) -> None:
        import torch

        from brats.model.ensemble import load_segmenter
        from brats.model.inference import BATCH_SIZES

        if placement.threads:
            torch.set_num_threads(placement.threads)
        self._counter = counter
        device = torch.device("cuda" if placement.use_gpu else "cpu")
        self._segmenter = load_segmenter(config.model, device, config.precision)
        self._batch_size = config.batch_size or BATCH_SIZES[device.type]

    def __call__(self, row: CaseRow) -> CaseRow:
        return per_case(
            row, self.predict, counter=self._counter, doing="predicting", stage="predict", remedy=REMEDY
        )

    def predict(self, read: tuple[T, Case]) -> tuple[T, Case, Labels]:
        """Add the label map (Z, H, W) of a case and drop its images, which no later step needs."""
        item, case = read
        return item, dataclasses.replace(case, images={}), self.labels(case)

    def labels(self, case: Case) -> Labels:
        """The label map, in batches as large as the memory of the GPU allows.

        A batch that does not fit is halved, for this case and those after it. Raises CaseError when a single slice
        does not fit; the cases after it begin with the full batch again.
        """
        from brats.model.inference import halving
        from brats.model.memory import is_out_of_memory

        try:
            labels, self._batch_size = halving(functools.partial(self._segmenter.labels, case), self._batch_size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = "one slice of it does not fit into the memory of the GPU; use one with more"
            raise CaseError("", reason, transient=True) from error
        return labels
