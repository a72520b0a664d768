"""The network at work in a Ray actor: it stays loaded, and turns one case after the other into label maps."""

import dataclasses
import json
import pickle
from dataclasses import asdict
from typing import Any

from brats.cluster import attempts
from brats.cluster.placement import Placement
from brats.config import PredictConfig
from brats.data.case import Case
from brats.data.rejects import Reject
from brats.errors import CaseError
from brats.labels import Labels

REMEDY = "use machines with more memory, or a smaller --batch-size"


class Predictor:
    """Ray step: from a case to its label map.

    counter: the job's count of the attempts at each case, of `attempts.start_counter`
    """

    def __init__(self, config: PredictConfig, placement: Placement, counter: Any) -> None:
        import torch

        from brats.model.inference import Segmenter

        if placement.threads:
            torch.set_num_threads(placement.threads)
        self._counter = counter
        device = torch.device("cuda" if placement.use_gpu else "cpu")
        self._segmenter = Segmenter.load(config.model, device, config.precision)
        self._batch_size = config.batch_size

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Add the label map (Z, H, W) as bytes; the images, done with, stay behind."""
        if row["reject"]:
            return row
        try:
            # Before the case is unpacked, which alone may take more memory than there is.
            attempts.begin(self._counter, row["case_id"], "predicting", REMEDY)
            case: Case = pickle.loads(row["case"])
            predicted = self._predict(case)
        except CaseError as error:
            reject = Reject.from_error(row["case_id"], "predict", error)
            return {**row, "case": b"", "reject": json.dumps(asdict(reject))}
        without_images = dataclasses.replace(case, images={})
        return {**row, "case": pickle.dumps(without_images, protocol=5), "predicted": pickle.dumps(predicted)}

    def _predict(self, case: Case) -> Labels:
        """The label map, in batches as large as the memory of the GPU allows.

        A batch that does not fit is halved, for this case and those after it. Raises CaseError when a single slice
        does not fit; the cases after it begin with the full batch again.
        """
        import torch

        batch_size = self._batch_size
        while True:
            try:
                predicted = self._segmenter.labels(case, batch_size)
            except torch.OutOfMemoryError as error:
                if batch_size == 1:
                    reason = "one slice of it does not fit into the memory of the GPU; use one with more"
                    raise CaseError("", reason, transient=True) from error
            else:
                self._batch_size = batch_size
                return predicted
            # Out here, where the error and the tensors that it holds on to are gone.
            torch.cuda.empty_cache()
            batch_size = -(-batch_size // 2)
