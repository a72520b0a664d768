"""The network in a Ray actor: loaded once, it turns case after case into label maps."""

import dataclasses
from typing import Any, TypeVar

from brats.cluster.per_case import Row, per_case
from brats.cluster.placement import Placement
from brats.config import PredictConfig
from brats.data.preprocess import Case
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

        from brats.model.bundle import load_bundle
        from brats.model.fusion import for_inference
        from brats.model.precision import choose_precision

        if placement.threads:
            torch.set_num_threads(placement.threads)
        self._counter = counter
        self._device = torch.device("cuda" if placement.use_gpu else "cpu")
        self._precision = choose_precision(config.precision, self._device)
        self._batch_size = config.batch_size
        network, self._card = load_bundle(config.model)
        network = for_inference(network, len(self._card.modalities), self._precision)
        self._network = network.to(self._device)

    def __call__(self, row: Row) -> Row:
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
        import torch

        from brats.model.inference import predict_labels

        batch_size = self._batch_size
        while True:
            try:
                predicted = predict_labels(
                    self._network,
                    case,
                    modalities=self._card.modalities,
                    thresholds=self._card.thresholds,
                    divisor=self._card.divisor,
                    batch_size=batch_size,
                    device=self._device,
                    precision=self._precision,
                )
            except torch.OutOfMemoryError as error:
                if batch_size == 1:
                    reason = "one slice of it does not fit into the memory of the GPU; use one with more"
                    raise CaseError("", reason, transient=True) from error
            else:
                self._batch_size = batch_size
                return predicted
            # After the `except` block, where the error and the tensors that it refers to are gone.
            torch.cuda.empty_cache()
            batch_size = -(-batch_size // 2)
