"""The network in a Ray actor: loaded once, it segments case after case."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from brats.cluster.capacity import Machine
from brats.cluster.per_case import CaseRow, per_case
from brats.cluster.placement import Placement
from brats.config import PredictConfig
from brats.data.case import Case
from brats.errors import CaseError

T = TypeVar("T")  # what travels beside a case

REMEDY = "use machines with more memory, or a smaller --batch-size"

Work = Callable[[Any, Case, int], Any]
"""What a segmenter makes of a case, in batches of this many slices."""


def predictor_cpus(placement: Placement, machines: Sequence[Machine]) -> float:
    """CPUs that a predictor reserves: so few that all of them leave half of the smallest machine free.

    Ray starts the predictors of a lost machine again on those that remain, however full that makes them. Without a
    CPU for the tasks that read and score, the job would hang. On GPUs they wait for another GPU instead.
    """
    if placement.use_gpu:
        return placement.cpus
    smallest = min((machine.cpus for machine in machines if machine.cpus), default=1.0)
    return min(placement.cpus, smallest / 2 / placement.workers)


class Predictor:
    """Ray step: from a case to what the network makes of it.

    work:    such as `brats.model.levels.segment`
    counter: the job's count of the attempts at each case, of `attempts.start_counter`
    """

    def __init__(self, config: PredictConfig, work: Work, placement: Placement, counter: Any) -> None:
        import torch

        from brats.model.ensemble import load_segmenter
        from brats.model.inference import BATCH_SIZES

        if placement.threads:
            torch.set_num_threads(placement.threads)
        self._counter = counter
        self._work = work
        device = torch.device("cuda" if placement.use_gpu else "cpu")
        self._segmenter = load_segmenter(config.model, device, config.precision, flips=config.flips)
        self._batch_size = config.batch_size or BATCH_SIZES[device.type]

    def __call__(self, row: CaseRow) -> CaseRow:
        return per_case(
            row, self.predict, counter=self._counter, doing="predicting", stage="predict", remedy=REMEDY
        )

    def predict(self, read: tuple[T, Case]) -> tuple[T, Case, Any]:
        """Add what the network makes of a case, and drop its images, which no later step needs."""
        item, case = read
        return item, dataclasses.replace(case, images={}), self.segment(case)

    def segment(self, case: Case) -> Any:
        """What the network makes of a case, in batches as large as the memory of the GPU allows.

        A batch that does not fit is halved, for this case and those after it. Raises CaseError when a single slice
        does not fit; the cases after it begin with the full batch again.
        """
        from brats.model.inference import halving
        from brats.model.memory import is_out_of_memory

        try:
            work = functools.partial(self._work, self._segmenter, case)
            made, self._batch_size = halving(work, self._batch_size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = "one slice of it does not fit into the memory of the GPU; use one with more"
            raise CaseError("", reason, transient=True) from error
        return made
