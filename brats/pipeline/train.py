"""From a dataset to a run: freeze the split, fit the network, export the best epoch, score the test split."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from brats import storage
from brats.cluster.owned import Ownership, check_free, owned
from brats.config import PredictConfig, PrepareConfig, ReportConfig, TrainConfig
from brats.console import say, some
from brats.data.batches import InputSpec
from brats.data.cases import Hdf5Options
from brats.data.dataset import is_prepared
from brats.data.items import check_unread
from brats.data.masks import masks_dir
from brats.data.run_split import (
    SplitRow,
    check_same_cases,
    choose_split,
    freeze_split,
    n_with_tumour,
    split_path,
    test_dir,
)
from brats.pipeline.export import write_card
from brats.pipeline.phantoms import make_phantoms
from brats.pipeline.predict import predict
from brats.pipeline.prepare import prepare
from brats.pipeline.report import page_path, report, report_dir
from brats.pipeline.tune import tune
from brats.pipeline.workers.fit import fit_on_cluster
from brats.saved_config import SavedConfig
from brats.score.parts import check_parts
from brats.score.results import Results

if TYPE_CHECKING:
    from torch import Tensor

    from brats.model.bundle import ModelCard
    from brats.model.decoding import Decoding

ChooseSplit = Callable[[TrainConfig, str, str], list[SplitRow]]
TrainedOn = Mapping[str, Mapping[str, str]]  # of a ModelCard


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: where it is, its epochs and, unless left out, the scores of its test split.

    runs: those that a run of several networks consists of; its epochs are theirs
    """

    out: str
    history: list[dict[str, Any]]
    scores: Results | None
    figures: list[str]
    runs: Sequence["TrainedRun"] = ()

    @property
    def networks(self) -> "list[TrainedRun]":
        """The runs of one network each: of a run of several networks those it consists of, else itself."""
        return [network for run in self.runs for network in run.networks] or [self]

    @property
    def masks(self) -> list[str]:
        """The folders of the masks that were scored: those of its own, or of the folds of a cross-validation."""
        if not self.scores:
            return []
        folders = [self.scores.out] if self.scores.out != self.out else [test_dir(run.out) for run in self.runs]
        return [masks_dir(folder) for folder in folders]

    def summary(self) -> str:
        """Scores and where everything is, for the console."""
        from brats.model.bundle import bundle_dir
        from brats.model.history import history_path
        from brats.report.figures import figures_dir

        lines = [self.scores.summary()] if self.scores else []
        lines.append(f"model    {bundle_dir(self.out)}")
        lines += [f"masks    {some(self.masks, at_most=1)}"] if self.scores else []
        histories = [history_path(run.out) for run in self.networks]
        lines.append(f"history  {some(histories, at_most=1)}")
        lines.append(f"figures  {figures_dir(self.out)}")
        lines.append(f"report   {page_path(report_dir(self.out))}")
        return "\n".join(lines)


def train(config: TrainConfig) -> TrainedRun:
    """Run the whole job that `TrainConfig` describes, or what is left of it.

    Raises ConfigError where another job is at work in `config.out`.
    """
    with owned(config.out, "train") as ownership:
        return _train(config, ownership)


def _train(config: TrainConfig, ownership: Ownership) -> TrainedRun:
    prepared, split, history = _fit(config)
    ownership.check()
    choose_split(config, config.out, prepared)  # again: the dataset may have been prepared anew meanwhile
    export_model(config, split, functools.partial(tune, config, prepared, split) if config.tune else None)
    scores = predict_test_split(config, prepared, split) if config.predict else None
    write_card(config.out)
    return TrainedRun(config.out, history, scores, report(ReportConfig(run=config.out)))


def fit_network(config: TrainConfig) -> None:
    """Train the network of a run, or what is left of it, and leave to `train` what comes after.

    Raises ConfigError where another job is at work in `config.out`.
    """
    with owned(config.out, "train"):
        _fit(config)


def _fit(config: TrainConfig) -> tuple[str, list[SplitRow], list[dict[str, Any]]]:
    """Claim the folder of a run and fit its network; return its dataset, split and history."""
    prepared, split = claim(config)
    return prepared, split, fit_on_cluster(config, prepared, split)


def claim(config: TrainConfig, choose: ChooseSplit = choose_split) -> tuple[str, list[SplitRow]]:
    """Claim the folder of a run for its configuration and freeze its split; return its dataset and split.

    choose: from a run, its folder and its dataset to its split; what it refuses claims nothing
    """
    from brats.model.initial import find_initial, keep_initial

    initial = find_initial(config)
    saved = SavedConfig.of("train", config, **({"init_weights": initial.hash} if initial else {}))
    # A start that got nowhere claims nothing.
    saved.check(config.out, values=storage.exists(split_path(config.out)))
    if config.predict:
        check_free(test_dir(config.out))
        check_parts(test_dir(config.out))  # now, and not after hours of training
    check_network(config)
    prepared = prepare_data(config)
    split = choose(config, config.out, prepared)
    warn_at_first_start(config.out, split, initial.card.trained_on if initial else {})
    saved.write(config.out)
    freeze_split(config.out, split, prepared)
    if initial:
        keep_initial(config.out, initial)
    return prepared, split


def prepare_data(config: TrainConfig) -> str:
    """The prepared dataset to train on: the one given, or one made of the cases given or of phantoms."""
    if config.data is not None and is_prepared(config.data):
        check_unread(config.data, config.coding, Hdf5Options.of(config))
        return config.data
    data = config.data or make_phantoms(storage.join(config.out, "phantoms"))
    started = storage.exists(split_path(config.out))
    check = functools.partial(check_same_cases, config.out, data) if started else None
    prepared = storage.join(config.out, "prepared")
    settings = PrepareConfig(
        data=data,
        out=prepared,
        modalities=config.modalities,
        coding=config.coding,
        hdf5_channels=config.hdf5_channels,
        hdf5_spacing_mm=config.hdf5_spacing_mm,
        seed=config.seed,
        strict=config.strict,
    )
    print(prepare(settings, check).summary(), flush=True)
    return prepared


def warn_at_first_start(run: str, split: Sequence[SplitRow], trained_on: TrainedOn) -> None:
    """Report what makes scores of a run say less, once: not where its split is frozen.

    A network is claimed by the process that fits it and by the one that goes on with it, and one that is averaged
    has the split of the run around it, which was reported there.
    """
    if not storage.exists(split_path(run)):
        warn_of_no_tumour(split)
        warn_of_known_patients(split, trained_on)


def warn_of_no_tumour(split: Sequence[SplitRow]) -> None:
    """Report splits whose scores say nothing, for no case of theirs has tumour."""
    for name, consequence in (
        ("val", "the validation Dice is 1 where nothing is found, and the best epoch the one that finds least"),
        ("test", "its Dice is 1 where nothing is found"),
    ):
        if any(row["split"] == name for row in split) and not n_with_tumour(split, name):
            say("train", f"WARNING: no case of the {name} split has tumour in its segmentation: {consequence}")


def warn_of_known_patients(split: Sequence[SplitRow], trained_on: TrainedOn) -> None:
    """Name the patients to validate on and to test that the model of --init was trained or chosen on."""
    from brats.model.initial import known_patients

    for name in ("val", "test"):
        known = known_patients([row for row in split if row["split"] == name], trained_on)
        by_name = f"; {len(known.by_name)} by name alone" if known.by_name else ""
        if known.patients:
            say(
                "train",
                f"WARNING: the model of --init was trained or chosen on patients of the {name} split "
                f"({some(known.patients)}{by_name}); their scores say nothing about new patients",
            )


def check_network(config: TrainConfig) -> None:
    """Raise ConfigError here, before any work, when the network cannot be built."""
    from brats.model.checkpoint import saved_epochs
    from brats.model.outputs import OutputSpec
    from brats.model.unet import build_unet

    build_unet(
        encoder=config.encoder,
        n_channels=InputSpec.of(config).n_channels,
        decoder_channels=config.decoder_channels,
        encoder_weights=None if saved_epochs(config.out) else config.encoder_weights,
        outputs=OutputSpec(config.outputs),
        dropout=config.dropout,
    )


def export_model(
    config: TrainConfig,
    split: Sequence[SplitRow],
    choose: Callable[[Mapping[str, "Tensor"], "ModelCard"], "Decoding"] | None = None,
) -> None:
    """Write the bundle of the best epoch to RUN/model, unless it is there.

    choose: from weights and card to how probabilities become a label map; without it by .5 and no rule
    """
    from brats.model.bundle import ModelCard, bundle_dir, card_outputs, exported_epoch, read_card, save_bundle
    from brats.model.checkpoint import best_epoch, load_checkpoint
    from brats.model.initial import initial_dir
    from brats.model.outputs import OutputSpec

    last = load_checkpoint(config.out)
    assert last is not None  # of the epochs just trained
    epoch = best_epoch(last.history)
    folder = bundle_dir(config.out)
    if exported_epoch(folder) == epoch:
        dice = last.history[epoch - 1]["val_dice"]
        say("train", f"best epoch still {epoch} of {len(last.history)}, validation Dice {dice:.3f}")
        return
    best = load_checkpoint(config.out, epoch)
    assert best is not None  # kept beside the last one
    card = ModelCard(
        encoder=config.encoder,
        decoder_channels=config.decoder_channels,
        inputs=InputSpec.of(config),
        outputs=card_outputs(OutputSpec(config.outputs)),
        epoch=epoch,
        val_dice=best.history[-1]["val_dice"],
        trained_on={
            **(read_card(initial_dir(config.out)).trained_on if config.init else {}),
            **_trained_on(split),
        },
    )
    say("train", f"best epoch {epoch} of {len(last.history)}, validation Dice {card.val_dice:.3f}")
    if choose:
        card = dataclasses.replace(card, decoding=choose(best.validated, card))
    storage.remove(test_dir(config.out))  # of an earlier best epoch
    save_bundle(folder, best.validated, card)


def _trained_on(split: Sequence[SplitRow]) -> dict[str, dict[str, str]]:
    return {
        row["case_id"]: {"patient_id": row["patient_id"], "voxel_hash": row["voxel_hash"]}
        for row in split
        if row["split"] != "test"
    }


def predict_test_split(config: TrainConfig, prepared: str, split: Sequence[SplitRow]) -> Results | None:
    """Predict and score the test split into RUN/test; None where no case is in it."""
    if not any(row["split"] == "test" for row in split):
        say("predict", "nothing to do: no case is in the test split")
        return None
    return predict(
        PredictConfig(
            model=config.out,
            data=prepared,
            out=test_dir(config.out),
            split="test",
            nifti=config.nifti,
            challenge_rules=config.challenge_rules,
            device=config.device,
            precision=config.precision,
            strict=config.strict,
        )
    )
