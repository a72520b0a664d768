"""A training that takes no time: it leaves the files of a run, with a network of its seed."""

from dataclasses import replace

import torch

from brats.config import TrainConfig
from brats.data.items import Item, PreparedCase
from brats.data.run_split import read_split, test_dir
from brats.labels import ED
from brats.model.bundle import bundle_dir, save_bundle
from brats.model.history import HISTORY, write_history
from brats.pipeline.predict import score_case
from brats.pipeline.train import TrainedRun
from brats.score.parts import write_part
from brats.score.results import Results, write_results
from tests.support.bundles import MODEL_CARD
from tests.support.prepared import tiny_case, undecided_network


def train_at_once(config: TrainConfig) -> TrainedRun:
    """Stands for `train`: a bundle, a history and, where asked, the scores of the test split."""
    network = undecided_network()
    torch.nn.init.constant_(network.get_parameter("segmentation_head.0.bias"), config.seed)
    trained_on = {
        row["case_id"]: {"patient_id": row["patient_id"], "voxel_hash": row["voxel_hash"]}
        for row in read_split(config.out)
        if row["split"] != "test"
    }
    save_bundle(bundle_dir(config.out), network.state_dict(), replace(MODEL_CARD, trained_on=trained_on))
    history = [{**dict.fromkeys(HISTORY.schema.names, 0.5), "epoch": 1, "n_slices": 8, "n_steps": 1}]
    write_history(config.out, history, {})
    return TrainedRun(config.out, history, score_at_once(config) if config.predict else None, [])


def score_at_once(config: TrainConfig) -> Results:
    """The scores of a model that calls all tumour oedema, of the test split of a run."""
    out, case_ids = test_dir(config.out), set()
    for row in read_split(config.out):
        if row["split"] != "test":
            continue
        case = tiny_case(row["case_id"], seed=int(row["case_id"].rpartition("_")[2]))
        assert case.labels is not None
        source = PreparedCase(path="", voxel_hash="")
        item = Item(
            case_id=case.case_id,
            patient_id=row["patient_id"],
            split="test",
            source=source,
            sources=(),
            coding="brats2018",
        )
        write_part(out, score_case(item, case, (case.labels > 0).astype("uint8") * ED))
        case_ids.add(case.case_id)
    return write_results(out, case_ids, [], config={})
