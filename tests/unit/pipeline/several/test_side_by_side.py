"""Several runs: how many find room beside each other, and what becomes of those that fail."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from brats.cluster.capacity import Capacity, Machine
from brats.config import TrainConfig
from brats.errors import BratsError, ConfigError, NoRoomError
from brats.model.history import HISTORY, write_history
from brats.pipeline.several import ensemble, side_by_side
from brats.pipeline.several.side_by_side import Share, is_trained, share_out, train_all, train_run
from brats.pipeline.train import TrainedRun

T4 = Machine(cpus=4, gpus=1, accelerator="T4")
HEAD, CPU = Machine(cpus=0), Machine(cpus=2)


def capacity(*machines: Machine, grown: Sequence[Machine] = ()) -> Capacity:
    return Capacity(machines=machines, free=machines, grown=grown or machines)


def runs(n: int, **options: Any) -> list[TrainConfig]:
    return [TrainConfig(out=f"/out/run_{number}", **options) for number in range(n)]


@pytest.mark.parametrize(
    ("n_runs", "options", "machines", "share"),
    [
        (3, {}, [HEAD, T4, T4], Share(2, 1)),
        (3, {}, [T4] * 4, Share(3, 1)),
        (3, {}, [T4] * 6, Share(3, 2)),
        (5, {"workers": 2}, [T4] * 4, Share(2, 2)),
        (3, {"workers": 4}, [T4] * 2, Share(0, 4)),
        (3, {"device": "cpu"}, [HEAD, T4, T4], Share(2, 1)),
        (3, {}, [HEAD, CPU, CPU], Share(2, 1)),
        (3, {}, [CPU], Share(1, 1)),
        (4, {}, [Machine(cpus=4, gpus=4)], Share(2, 1)),  # 4 CPUs are those of two workers and what feeds them
        (4, {}, [Machine(cpus=16, gpus=4)], Share(4, 1)),
    ],
)
def test_as_many_at_a_time_as_there_are_gpus_or_machines_for(
    n_runs: int, options: dict[str, Any], machines: list[Machine], share: Share
) -> None:
    assert share_out(runs(n_runs, **options), capacity(*machines)) == share


def test_machines_that_an_autoscaler_can_add_count() -> None:
    assert share_out(runs(3), capacity(HEAD, grown=[T4, T4])) == Share(2, 1)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that were trained in this process; those called "bad" and "wrong" fail."""
    done: list[str] = []

    def train(config: TrainConfig) -> TrainedRun:
        done.append(config.out)
        if config.out.endswith("bad"):
            raise BratsError("the loss is no longer finite")
        if config.out.endswith("wrong"):
            raise ConfigError("--encoder: unknown")
        return TrainedRun(config.out, [], None, [])

    monkeypatch.setattr(ensemble, "train", train)
    monkeypatch.setattr(side_by_side, "cluster_capacity", lambda: capacity(CPU))
    return done


def test_on_one_machine_runs_are_trained_in_turn_and_each_has_its_outcome(
    trained: list[str], tmp_path: Path
) -> None:
    names = ("a", "bad", "wrong", "b")
    outcomes = train_all([TrainConfig(out=str(tmp_path / name)) for name in names])
    assert [Path(out).name for out in trained] == list(names)
    assert [str(each) if isinstance(each, BratsError) else Path(each.out).name for each in outcomes] == [
        "a",
        "the loss is no longer finite",
        "--encoder: unknown",
        "b",
    ]


@pytest.mark.usefixtures("trained")
def test_a_single_run_raises_its_error(tmp_path: Path) -> None:
    with pytest.raises(BratsError, match="no longer finite"):
        train_run(TrainConfig(out=str(tmp_path / "bad")))
    assert train_run(TrainConfig(out=str(tmp_path / "good"))).out == str(tmp_path / "good")


def test_where_there_is_room_networks_are_trained_by_children_and_gone_through_once_more(
    trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def run_children(configs: list[TrainConfig], at_once: int, address: str) -> dict[str, BratsError]:
        asked.append((configs, at_once, address))
        return {configs[1].out: BratsError("its process ended with signal 9")}

    monkeypatch.setattr(side_by_side, "cluster_capacity", lambda: capacity(HEAD, T4, T4))
    monkeypatch.setattr(side_by_side, "run_children", run_children)
    monkeypatch.setattr(side_by_side, "ray_address", lambda: "head:6379")
    configs = [TrainConfig(out=str(tmp_path / name)) for name in "abc"]
    outcomes = train_all(configs)
    given = [dataclasses.replace(config, workers=1) for config in configs]
    assert asked == [(given, 2, "head:6379")]
    assert trained == [configs[0].out, configs[2].out]
    assert str(outcomes[1]) == "its process ended with signal 9"
    assert "3 networks, 2 at a time with 1 worker each\n" in capsys.readouterr().out


def test_networks_that_found_no_room_beside_others_are_trained_after_them(
    trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_children(configs: list[TrainConfig], *_: object) -> dict[str, BratsError]:
        return {configs[1].out: NoRoomError("no room"), configs[2].out: BratsError("the loss is no longer finite")}

    monkeypatch.setattr(side_by_side, "cluster_capacity", lambda: capacity(HEAD, T4, grown=[T4, T4, T4]))
    monkeypatch.setattr(side_by_side, "run_children", run_children)
    monkeypatch.setattr(side_by_side, "ray_address", lambda: "head:6379")
    configs = [TrainConfig(out=str(tmp_path / name)) for name in "abc"]
    outcomes = train_all(configs)
    assert trained == [configs[0].out, configs[1].out]
    assert [str(each) for each in outcomes if isinstance(each, BratsError)] == ["the loss is no longer finite"]
    assert "1 of 3 networks found no room beside the others; they come after them\n" in capsys.readouterr().out


def write_epochs(out: Path, n_epochs: int) -> None:
    row = {**dict.fromkeys(HISTORY.schema.names, 0.5), "n_slices": 8, "n_steps": 3}
    write_history(str(out), [{**row, "epoch": epoch} for epoch in range(1, n_epochs + 1)], {})


def test_a_run_is_trained_once_it_has_all_its_epochs_or_steps(tmp_path: Path) -> None:
    assert not is_trained(TrainConfig(out=str(tmp_path), epochs=2))
    write_epochs(tmp_path, 2)
    assert is_trained(TrainConfig(out=str(tmp_path), epochs=2))
    assert not is_trained(TrainConfig(out=str(tmp_path), epochs=3))
    assert is_trained(TrainConfig(out=str(tmp_path), steps=6))
    assert not is_trained(TrainConfig(out=str(tmp_path), steps=7))
    assert not is_trained(TrainConfig(out=str(tmp_path)))  # of at least 30 epochs


def test_what_is_trained_needs_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "cluster_capacity", lambda: capacity(HEAD, T4, T4))
    configs = [TrainConfig(out=str(tmp_path / name), epochs=1) for name in "abc"]
    for config in configs[:2]:
        write_epochs(Path(config.out), 1)
    assert side_by_side.train_beside(configs) == {}
