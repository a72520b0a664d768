"""Checkpoints: whole or not at all, the last and the best kept, never unpickled."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from brats.errors import StorageError
from brats.model.checkpoint import (
    Checkpoint,
    best_epoch,
    checkpoint_path,
    load_checkpoint,
    save_checkpoint,
    saved_epochs,
)

WEIGHT = torch.linspace(1, 2, 64)


def rows(*dice: float) -> list[dict[str, Any]]:
    return [{"epoch": epoch, "val_dice": value} for epoch, value in enumerate(dice, start=1)]


def checkpoint(*dice: float) -> Checkpoint:
    """The checkpoint after as many epochs, with a real optimiser's state."""
    weight = torch.nn.Parameter(torch.zeros(64))
    optimiser = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimiser.step()
    return Checkpoint(
        weights={"weight": WEIGHT.clone()},
        average={"weight": WEIGHT + 1},
        optimiser=optimiser.state_dict(),
        scaler={"scale": 8.0},
        history=rows(*dice),
    )


def saved(run: Path, *dice: float) -> Path:
    save_checkpoint(str(run), checkpoint(*dice))
    return Path(checkpoint_path(str(run), len(dice)))


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    saved(tmp_path, 0.3, 0.4)
    loaded, expected = load_checkpoint(str(tmp_path)), checkpoint(0.3, 0.4)
    assert loaded is not None
    assert torch.equal(loaded.weights["weight"], WEIGHT)
    assert torch.equal(loaded.validated["weight"], WEIGHT + 1)
    torch.testing.assert_close(loaded.optimiser, expected.optimiser, rtol=0, atol=0)
    assert loaded.scaler == {"scale": 8.0}
    assert loaded.history == rows(0.3, 0.4)
    assert loaded.epoch == 2


def test_a_run_without_checkpoint_has_none(tmp_path: Path) -> None:
    assert saved_epochs(str(tmp_path)) == []
    assert load_checkpoint(str(tmp_path)) is None


def test_only_the_last_and_the_best_epoch_are_kept(tmp_path: Path) -> None:
    dice = [0.1, 0.5, 0.3, 0.4, 0.6, 0.2]
    kept = []
    for n_epochs in range(1, len(dice) + 1):
        saved(tmp_path, *dice[:n_epochs])
        kept.append(saved_epochs(str(tmp_path)))
    assert kept == [[1], [2], [2, 3], [2, 4], [5], [5, 6]]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["epoch_00005", "epoch_00006"]


def test_the_last_is_loaded_unless_another_is_asked_for(tmp_path: Path) -> None:
    saved(tmp_path, 0.5)
    saved(tmp_path, 0.5, 0.4)
    last, best = load_checkpoint(str(tmp_path)), load_checkpoint(str(tmp_path), 1)
    assert last is not None
    assert best is not None
    assert (last.epoch, best.epoch) == (2, 1)


def test_an_epoch_that_was_not_kept_is_not_found(tmp_path: Path) -> None:
    saved(tmp_path, 0.5)
    with pytest.raises(FileNotFoundError, match="epoch_00007"):
        load_checkpoint(str(tmp_path), 7)


def test_other_files_among_the_checkpoints_are_left_alone(tmp_path: Path) -> None:
    others = [tmp_path / "checkpoints" / name for name in ("ray/snapshot.json", "epoch_00001/.partial-x")]
    saved(tmp_path, 0.1)
    for other in others:
        other.parent.mkdir(exist_ok=True)
        other.write_text("{}")
    assert saved_epochs(str(tmp_path)) == [1]
    saved(tmp_path, 0.1, 0.2)
    assert saved_epochs(str(tmp_path)) == [2]
    assert others[0].exists()


@pytest.mark.parametrize(
    ("dice", "best"), [([0.2], 1), ([0.2, 0.3], 2), ([0.3, 0.2], 1), ([0.3, 0.3, 0.3], 1), ([0, 0], 1)]
)
def test_the_best_epoch_is_the_first_of_the_highest(dice: list[float], best: int) -> None:
    assert best_epoch(rows(*dice)) == best


def test_an_epoch_that_was_not_validated_is_not_the_best() -> None:
    history = [*rows(0.2, 0.1), {"epoch": 3, "val_dice": None}]
    assert best_epoch(history) == 1


def test_a_full_disk_leaves_the_checkpoint_before_and_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 0.5)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"epoch_00002/checkpoint.pt: cannot write: no space left"):
        saved(tmp_path, 0.5, 0.6)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["checkpoint.pt"]
    loaded = load_checkpoint(str(tmp_path))
    assert loaded is not None
    assert loaded.epoch == 1


def flip_a_bit_of_a_weight(content: bytes) -> bytes:
    position = content.index(WEIGHT.numpy().tobytes())
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda _: b"",
    "cut in half": lambda content: content[: len(content) // 2],
    "last byte missing": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "text": lambda _: b"no checkpoint",
    "a bit flipped": flip_a_bit_of_a_weight,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_with_its_path(tmp_path: Path, damage: str) -> None:
    path = saved(tmp_path, 0.5)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(StorageError, match=rf"^{path}: not a whole checkpoint \(.*\); remove its folder") as caught:
        load_checkpoint(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, 0.5)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(StorageError, match=f"^{path}: not a whole checkpoint"):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize(("version", "named"), [({"version": 99}, 99), ({"version": 1}, 1), ({}, 1)])
def test_a_checkpoint_of_another_version_is_refused_by_name(
    tmp_path: Path, version: dict[str, int], named: int
) -> None:
    """One without a version is of before they had any."""
    path = saved(tmp_path, 0.5)
    torch.save({**version, **checkpoint(0.5).__dict__}, path)
    with pytest.raises(
        StorageError, match=f"^{path}: a checkpoint of version {named}, this program reads 2; use the version of"
    ):
        load_checkpoint(str(tmp_path))


def test_a_copy_stays_as_it_is_when_what_it_was_made_of_changes() -> None:
    original = checkpoint(0.5)
    copy = original.copied()
    torch.testing.assert_close(copy.__dict__, original.__dict__, rtol=0, atol=0)
    assert original.average is not None
    weight, moments = original.weights["weight"].clone(), original.optimiser["state"][0]
    before = {name: value.clone() for name, value in moments.items()}
    for tensor in (original.weights["weight"], original.average["weight"], *moments.values()):
        tensor.add_(1)
    original.history.append({"epoch": 2})
    assert torch.equal(copy.weights["weight"], weight)
    assert torch.equal(copy.validated["weight"], WEIGHT + 1)
    torch.testing.assert_close(copy.optimiser["state"][0], before, rtol=0, atol=0)
    assert [row["epoch"] for row in copy.history] == [1]


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(self.target),))


def test_loading_runs_no_code_from_the_file(tmp_path: Path) -> None:
    path, target = saved(tmp_path, 0.5), tmp_path / "sprung"
    torch.save({**checkpoint(0.5).__dict__, "scaler": Trap(str(target))}, path)
    with pytest.raises(StorageError, match=f"^{path}: not a whole checkpoint"):
        load_checkpoint(str(tmp_path))
    assert not target.exists()
    torch.load(path, weights_only=False)  # the trap does work
    assert target.exists()


def test_loading_does_not_use_the_pickle_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 0.5)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    assert load_checkpoint(str(tmp_path)) is not None
