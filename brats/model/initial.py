"""The weights of another model that a training starts from: found, checked to fit, and kept in the run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch import Tensor

from brats import storage
from brats.config import TrainConfig
from brats.data.batches import InputSpec
from brats.data.case import HASH_VERSION
from brats.data.run_split import SplitRow
from brats.errors import BundleError, ConfigError
from brats.model.bundle import CARD, ModelCard, find_bundle, read_tensors, weights_path
from brats.model.ensemble import bundles_of, is_ensemble, read_model


@dataclass(frozen=True, kw_only=True)
class Initial:
    """A model to start from: its bundle, its card, and the hash of its weights, by which a run knows it."""

    folder: str
    card: ModelCard
    hash: str


def initial_dir(run: str) -> str:
    """Where a run keeps the model that it started from."""
    return storage.join(run, "init")


def find_initial(config: TrainConfig) -> Initial | None:
    """The model that `--init` names or, once it is gone from there, the copy of the run; None without the option.

    Raises ConfigError where there is none, and where it does not fit the network of the run.
    """
    if config.init is None:
        return None
    try:
        folder = _locate(config.init, initial_dir(config.out))
        model = read_model(folder)  # which checks its tensors
    except BundleError as error:
        raise ConfigError(f"--init: {error}") from error
    if is_ensemble(folder):
        raise ConfigError(
            f"--init: {folder} is an ensemble; name one of its models, such as {bundles_of(folder)[0]}"
        )
    check_fits(model.cards[0], config, folder)
    return Initial(folder=folder, card=model.cards[0], hash=model.fingerprint)


def _locate(path: str, kept: str) -> str:
    try:
        return find_bundle(path)
    except BundleError:
        if storage.exists(storage.join(kept, CARD)):
            return kept
        raise


def check_fits(card: ModelCard, config: TrainConfig, folder: str) -> None:
    """Raise ConfigError that names what of a model differs from the network of a run. Its plane may."""
    theirs = {
        "encoder": card.encoder,
        "decoder channels": card.decoder_channels,
        "outputs": card.outputs["kind"],
        **asdict(card.inputs),
    }
    ours = {
        "encoder": config.encoder,
        "decoder channels": config.decoder_channels,
        "outputs": config.outputs,
        **asdict(InputSpec.of(config)),
    }
    for name, value in ours.items():
        if theirs[name] != value and name != "plane":
            raise ConfigError(
                f"--init: the model {folder} has {name} {_words(theirs[name])}, this run {_words(value)}; give the "
                "options that the model was trained with, or another model"
            )


def _words(value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return str(value)
    return " ".join(map(str, value)) or "none"


def keep_initial(run: str, initial: Initial) -> None:
    """Copy a model into a run, unless it is there; the card last. Workers and later starts need no other place."""
    kept = initial_dir(run)
    if storage.exists(storage.join(kept, CARD)):
        return
    storage.write_bytes(weights_path(kept), storage.read_bytes(weights_path(initial.folder)))
    storage.write_json(storage.join(kept, CARD), storage.read_json(storage.join(initial.folder, CARD)))


def read_initial(run: str) -> dict[str, Tensor]:
    """The weights that a run starts from, on the CPU. Raises BundleError."""
    return read_tensors(initial_dir(run))


class Known(NamedTuple):
    """Patients that a model was trained on: all of them, and those known by the name of a case or patient alone."""

    patients: list[str]
    by_name: list[str]


def known_patients(rows: Sequence[SplitRow], trained_on: Mapping[str, Mapping[str, str]]) -> Known:
    """The patients of these cases whom a model was trained on, by the hash of their voxels or by name.

    A name alone may be another's: phantoms have the names of BraTS 2020.
    """
    names = {*trained_on, *(case["patient_id"] for case in trained_on.values())}
    hashes = {case["voxel_hash"] for case in trained_on.values() if case["voxel_hash"].startswith(HASH_VERSION)}
    by_voxels = {row["patient_id"] for row in rows if row["voxel_hash"] in hashes}
    by_name = {row["patient_id"] for row in rows if {row["case_id"], row["patient_id"]} & names} - by_voxels
    return Known(sorted(by_voxels | by_name), sorted(by_name))
