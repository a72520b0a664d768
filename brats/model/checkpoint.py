"""Checkpoints: the state of a run after an epoch, read without unpickling; the last and the best are kept."""

import dataclasses
import io
import pickle
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from brats import storage
from brats.errors import StorageError
from brats.model.history import HistoryRow

# What zipfile and torch raise on the bytes of another or a damaged file.
DAMAGED = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    RuntimeError,
    ValueError,
    TypeError,
    EOFError,
    OverflowError,
)

VERSION = 2  # of the form of a checkpoint; one without a version is of the first


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that a resumed run needs. What is random follows from seed, epoch and step, so no generator is saved.

    average: of the weights; None where the run keeps none
    history: one row per epoch so far, the epoch of this checkpoint last
    """

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    optimiser: dict[str, Any]
    scaler: dict[str, Any]
    history: list[HistoryRow]

    @property
    def epoch(self) -> int:
        epoch: int = self.history[-1]["epoch"]
        return epoch

    @property
    def validated(self) -> dict[str, Tensor]:
        """The weights that the validation figures are of, and that a model is made of."""
        return self.weights if self.average is None else self.average

    def copied(self) -> "Checkpoint":
        """A copy on the CPU, which further training leaves as it is."""
        return dataclasses.replace(
            self,
            weights=_copied(self.weights),
            average=_copied(self.average),
            optimiser=_copied(self.optimiser),
            scaler=_copied(self.scaler),
            history=list(self.history),
        )


def _copied(value: Any) -> Any:
    """Nested dictionaries and lists of tensors and of values that do not change, copied to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def best_epoch(history: Sequence[HistoryRow]) -> int:
    """The epoch with the highest mean validation Dice; the first of equals. Epochs count from 1.

    Of those that were validated, which some epoch was.
    """
    validated = [row for row in history if row["val_dice"] is not None]
    best: int = max(validated, key=lambda row: (row["val_dice"], -row["epoch"]))["epoch"]
    return best


def checkpoints_dir(run: str) -> str:
    return storage.join(run, "checkpoints")


def checkpoint_path(run: str, epoch: int) -> str:
    return storage.join(checkpoints_dir(run), f"epoch_{epoch:05d}", "checkpoint.pt")


def saved_epochs(run: str) -> list[int]:
    """Epochs that have a checkpoint, ascending."""
    try:
        files = storage.list_files(checkpoints_dir(run))
    except FileNotFoundError:
        return []
    found = [re.search(r"/epoch_(\d{5})/checkpoint\.pt$", file.path) for file in files]
    return sorted(int(match[1]) for match in found if match)


def save_checkpoint(run: str, checkpoint: Checkpoint) -> None:
    """Write the checkpoint, then remove those of epochs that are neither the last nor the best."""
    content = io.BytesIO()
    torch.save({"version": VERSION, **checkpoint.__dict__}, content)
    storage.write_bytes(checkpoint_path(run, checkpoint.epoch), content.getbuffer())
    for epoch in saved_epochs(run):
        if epoch not in (checkpoint.epoch, best_epoch(checkpoint.history)):
            storage.remove(checkpoint_path(run, epoch).rsplit("/", 1)[0])


def load_checkpoint(run: str, epoch: int | None = None) -> Checkpoint | None:
    """The checkpoint of an epoch (default: the last), on the CPU; None where there is none.

    Raises StorageError naming the file when it is damaged, FileNotFoundError when this epoch has none.
    """
    epochs = saved_epochs(run)
    if not epochs:
        return None
    path = checkpoint_path(run, epochs[-1] if epoch is None else epoch)
    try:
        content = _decode(storage.read_bytes(path))
        version = content.pop("version", 1 if "weights" in content else VERSION)  # else of another program
        if version == VERSION:
            return Checkpoint(**content)
    except DAMAGED as error:
        reason = str(error).partition("\n")[0]
        raise StorageError(f"{path}: not a whole checkpoint ({reason}); remove its folder to go on") from error
    raise StorageError(
        f"{path}: a checkpoint of version {version}, this program reads {VERSION}; use the version of "
        "brats-ray that wrote it, or start again with another --out"
    )


def _decode(data: bytes) -> dict[str, Any]:
    content = io.BytesIO(data)
    with zipfile.ZipFile(content) as archive:  # torch itself does not look at the checksums
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} is damaged")
    content.seek(0)
    values: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    return values
