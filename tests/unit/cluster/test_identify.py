"""Files held against those of before: read only where nothing cheaper tells them apart."""

import os
from pathlib import Path

import pytest

from brats.cluster import identify as module
from brats.cluster.identify import identify, read_hashes
from brats.data.cases import find_cases
from brats.data.sources import Sources, same_sources
from brats.errors import CaseError


def write(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)


def found(root: Path) -> dict[str, Sources]:
    return {files.case_id: files.sources(("t1",)) for files in find_cases(str(root), ("t1",)).cases}


@pytest.fixture
def before(tmp_path: Path) -> dict[str, Sources]:
    """Two cases, read."""
    for case_id in ("a", "b"):
        write(tmp_path / case_id, f"{case_id}_t1.nii", case_id.encode())
        write(tmp_path / case_id, f"{case_id}_seg.nii", b"mask")
    return {case_id: read_hashes(sources) for case_id, sources in found(tmp_path).items()}


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "from_cases", lambda unclear: pytest.fail(f"reads {list(unclear)}"))


@pytest.mark.usefixtures("no_reading")
def test_untouched_files_are_not_read(tmp_path: Path, before: dict[str, Sources]) -> None:
    assert identify(before, found(tmp_path), "prepare") == before


@pytest.mark.usefixtures("no_reading")
def test_files_of_another_size_and_new_cases_are_not_read(tmp_path: Path, before: dict[str, Sources]) -> None:
    write(tmp_path / "a", "a_seg.nii", b"larger mask")
    write(tmp_path / "c", "c_t1.nii", b"c")
    now = identify(before, found(tmp_path), "prepare")
    assert now["b"] == before["b"]
    assert not same_sources(before["a"], now["a"])
    assert [file.hash for file in now["c"]] == [""]


def test_only_the_file_that_was_touched_is_read(tmp_path: Path, before: dict[str, Sources]) -> None:
    write(tmp_path / "a", "a_seg.nii", b"MASK")
    (tmp_path / "a" / "a_t1.nii").chmod(0)  # its hash is known
    image, mask = read_hashes((before["a"][0], found(tmp_path)["a"][1]))
    assert image == before["a"][0]
    assert mask.hash not in ("", before["a"][1].hash)


def test_size_and_time_of_modification_put_back_do_not_hide_a_change(
    tmp_path: Path, before: dict[str, Sources]
) -> None:
    path = tmp_path / "a" / "a_seg.nii"
    times = path.stat()
    write(tmp_path / "a", "a_seg.nii", b"MASK")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    image, mask = found(tmp_path)["a"]
    assert image.stamp == before["a"][0].stamp
    assert mask.stamp != before["a"][1].stamp


@pytest.mark.usefixtures("before")
def test_file_that_cannot_be_read_is_an_error_of_its_case(tmp_path: Path) -> None:
    now = found(tmp_path)["a"]
    (tmp_path / "a" / "a_seg.nii").unlink()
    with pytest.raises(CaseError, match=r"a_seg\.nii: cannot read it: no longer there"):
        read_hashes(now)
