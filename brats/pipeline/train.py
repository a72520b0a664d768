"""From a prepared dataset to a run: plan the epochs, stream the slices, fit the network, score the test split."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from brats import storage
from brats.cluster.datasets import rows_of
from brats.config import (
    PredictConfig,
    PrepareConfig,
    ReportConfig,
    TrainConfig,
    resolve_train,
)
from brats.console import Progress, say
from brats.data.cases import find_cases
from brats.data.dataset import is_prepared
from brats.data.run_split import check_same_cases, freeze_split, split_path
from brats.pipeline.fit import fit_on_cluster
from brats.pipeline.predict import predict
from brats.pipeline.prepare import prepare
from brats.pipeline.report import report
from brats.saved_config import SavedConfig
from brats.score.results import Results

N_PHANTOMS = 26  # 18 to train on, 4 to validate on, 4 to test
PHANTOM_SEED = 0
FILES_PER_PHANTOM = 5


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: where it is, its epochs and, unless left out, the scores of its test split."""

    out: str
    history: list[dict[str, Any]]
    scores: Results | None
    figures: list[str]

    def summary(self) -> str:
        """Scores and where everything is, for the console."""
        lines = [self.scores.summary()] if self.scores else []
        lines.append(f"model    {storage.join(self.out, 'model')}")
        lines += [f"masks    {storage.join(self.out, 'test', 'masks')}"] if self.scores else []
        lines.append(f"history  {storage.join(self.out, 'history.parquet')}")
        lines.append(f"figures  {storage.join(self.out, 'figures')}")
        return "\n".join(lines)


def train(config: TrainConfig) -> TrainedRun:
    """Run the whole job that `TrainConfig` describes, or what is left of it."""
    config = resolve_train(config)
    assert config.out is not None
    check_network(config)
    if not storage.exists(split_path(config.out)):
        storage.remove(storage.join(config.out, "config.json"))  # of a start that got nowhere
    SavedConfig.of("train", config).claim(config.out)
    prepared = prepare_data(config)
    split = freeze_split(config, config.out, prepared)
    history = fit_on_cluster(config, prepared, split)
    export_model(config, split)
    scores = None
    has_test = any(row["split"] == "test" for row in split)
    if config.predict and not has_test:
        say("predict", "nothing to do: no case is in the test split")
    if config.predict and has_test:
        scores = predict(
            PredictConfig(
                model=config.out,
                data=prepared,
                out=storage.join(config.out, "test"),
                split="test",
                nifti=config.nifti,
                device=config.device,
                precision=config.precision,
                strict=config.strict,
            )
        )
    figures = report(ReportConfig(run=config.out))
    return TrainedRun(config.out, history, scores, figures)


def prepare_data(config: TrainConfig) -> str:
    """The prepared dataset to train on: the one given, or one made of the cases given or of phantoms."""
    assert config.out is not None
    if config.data is not None and is_prepared(config.data):
        return config.data
    data = config.data or make_phantoms(storage.join(config.out, "phantoms"))
    found = find_cases(data, config.modalities).cases
    source_bytes = {files.case_id: files.source_bytes(config.modalities) for files in found}
    check_same_cases(config.out, data, source_bytes)
    prepared = storage.join(config.out, "prepared")
    settings = PrepareConfig(
        data=data, out=prepared, modalities=config.modalities, seed=config.seed, strict=config.strict
    )
    print(prepare(settings).summary(), flush=True)
    return prepared


def check_network(config: TrainConfig) -> None:
    """Raise ConfigError here, before any work, when the network cannot be built."""
    from brats.model.checkpoint import saved_epochs
    from brats.model.unet import build_unet

    build_unet(
        encoder=config.encoder,
        n_modalities=len(config.modalities),
        decoder_channels=config.decoder_channels,
        encoder_weights=None if saved_epochs(config.out or "") else config.encoder_weights,
    )


def make_phantoms(root: str) -> str:
    """Write the phantom dataset, the cases in parallel; those already there are kept."""
    import ray.data

    from brats.data.phantom.case import case_id, write_name_mapping

    whole = [file for file in _files_below(root) if not file.name.startswith(".")]
    written = Counter(file.path.split("/")[-2] for file in whole)
    todo = [index for index in range(1, N_PHANTOMS + 1) if written[case_id(index)] < FILES_PER_PHANTOM]
    if todo:
        say("phantoms", f"no --data given: making {len(todo)} phantom cases in {root}")
        write_name_mapping(root, N_PHANTOMS, PHANTOM_SEED)
        dataset = ray.data.from_items([{"index": index} for index in todo], override_num_blocks=len(todo))
        progress = Progress("phantoms", len(todo), "cases")
        for _ in rows_of(dataset.map(_write_phantom, fn_kwargs={"root": root}, num_cpus=1)):
            progress.advance()
    return root


def _files_below(root: str) -> list[storage.FileInfo]:
    try:
        return storage.list_files(root)
    except FileNotFoundError:
        return []


def _write_phantom(row: dict[str, Any], root: str) -> dict[str, Any]:
    """Ray step: write one phantom case."""
    from brats.data.phantom.case import write_phantom

    return {"case_id": write_phantom(root, row["index"], PHANTOM_SEED)}


def export_model(config: TrainConfig, split: list[dict[str, Any]]) -> None:
    """Write the bundle of the best epoch to RUN/model, unless it is there."""
    from brats.model.bundle import ModelCard, read_card, save_bundle
    from brats.model.checkpoint import best_epoch, load_checkpoint

    assert config.out is not None
    last = load_checkpoint(config.out)
    assert last is not None
    epoch = best_epoch(last.history)
    folder = storage.join(config.out, "model")
    if storage.exists(storage.join(folder, "model.json")) and read_card(folder).epoch == epoch:
        return
    best = load_checkpoint(config.out, epoch)
    assert best is not None
    card = ModelCard(
        encoder=config.encoder,
        decoder_channels=config.decoder_channels,
        modalities=config.modalities,
        epoch=epoch,
        val_dice=best.history[-1]["val_dice"],
        trained_on={
            row["case_id"]: {"patient_id": row["patient_id"], "voxel_hash": row["voxel_hash"]}
            for row in split
            if row["split"] != "test"
        },
    )
    storage.remove(storage.join(config.out, "test"))  # of an earlier best epoch
    save_bundle(folder, best.weights, card)
    say("train", f"best epoch {epoch} of {len(last.history)}, validation Dice {card.val_dice:.3f}")
