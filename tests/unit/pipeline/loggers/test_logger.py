"""What names a run in the stores of loggers."""

from pathlib import Path

from brats.config import TrainConfig
from brats.pipeline.loggers.logger import note, read_logged_run, read_notes, reason_of
from brats.saved_config import SavedConfig


def test_a_run_keeps_its_identity_and_another_one_has_another(tmp_path: Path) -> None:
    first, other = read_logged_run(str(tmp_path / "a")), read_logged_run(str(tmp_path / "b"))
    assert len(first.identity) == 16
    assert read_logged_run(str(tmp_path / "a")).identity == first.identity != other.identity


def test_a_run_is_named_by_its_last_two_folders(tmp_path: Path) -> None:
    assert read_logged_run(f"{tmp_path}/cv/fold_0").name == "cv/fold_0"


def test_its_values_are_those_of_its_configuration(tmp_path: Path) -> None:
    SavedConfig.of("train", TrainConfig(out=str(tmp_path), epochs=7)).write(str(tmp_path))
    run = read_logged_run(str(tmp_path))
    assert run.settled["modalities"] == ["flair", "t1", "t1ce", "t2"]
    assert run.free["epochs"] == 7
    assert not run.settled.keys() & run.free.keys()


def test_a_note_leaves_the_identity_and_other_notes(tmp_path: Path) -> None:
    identity = read_logged_run(str(tmp_path)).identity
    note(str(tmp_path), "a", 1)
    note(str(tmp_path), "b", [2])
    assert read_notes(str(tmp_path)) == {"identity": identity, "a": 1, "b": [2]}


def after(error: Exception, cause: Exception) -> Exception:
    """An error as `raise error from cause` leaves it."""
    error.__cause__ = cause
    return error


def test_a_reason_is_what_the_system_said_else_what_the_package_says_in_one_line() -> None:
    refused = ConnectionRefusedError(111, "Connection refused")
    assert reason_of(after(RuntimeError("max retries exceeded"), refused)) == "[Errno 111] Connection refused"
    assert reason_of(after(RuntimeError("no such\n  run"), KeyError("x"))) == "no such run"


def test_a_reason_has_no_secret_and_is_short() -> None:
    assert (
        reason_of(RuntimeError("request to https://me:a/b@server/api failed"))
        == "request to https://server/api failed"
    )
    assert reason_of(RuntimeError("x" * 300)) == "x" * 200 + " ..."
