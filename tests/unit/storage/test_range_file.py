"""A file with one range in memory: what is outside it is fetched, one request for each read."""

import io

import pytest

from brats.storage.range_file import RangeFile

CONTENT = bytes(range(100))


class Source:
    """Stands for a store; remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, stop: int) -> bytes:
        self.asked.append((start, stop))
        return CONTENT[start:stop]


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def file(source: Source) -> RangeFile:
    """Its last twenty bytes are in memory."""
    return RangeFile(source, 100, 80, CONTENT[80:])


def read(file: RangeFile, start: int, n_bytes: int) -> bytes:
    file.seek(start)
    return file.read(n_bytes) or b""


def test_what_is_in_memory_is_not_asked_for(file: RangeFile, source: Source) -> None:
    assert read(file, 80, 20) == CONTENT[80:]
    assert read(file, 85, 3) == CONTENT[85:88]
    assert source.asked == []


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (70, 80), (70, 90), (79, 100)])
def test_what_is_not_whole_in_memory_is_one_request(start: int, stop: int, file: RangeFile, source: Source) -> None:
    assert read(file, start, stop - start) == CONTENT[start:stop]
    assert source.asked == [(start, stop)]


def test_reading_ends_with_the_file(file: RangeFile, source: Source) -> None:
    assert read(file, 95, 50) == CONTENT[95:]
    assert read(file, 100, 1) == b""
    assert read(file, 200, 1) == b""
    assert source.asked == []


def test_positions_count_from_the_start_the_place_and_the_end(file: RangeFile) -> None:
    assert file.seek(90) == 90
    assert file.seek(-3, io.SEEK_CUR) == file.tell() == 87
    assert file.seek(-1, io.SEEK_END) == 99
    assert file.read(1) == CONTENT[99:]
    assert file.tell() == 100


def test_another_stretch_is_fetched_once(file: RangeFile, source: Source) -> None:
    other = file.with_range(10, 30)
    assert read(other, 12, 8) + read(other, 25, 5) == CONTENT[12:20] + CONTENT[25:30]
    assert source.asked == [(10, 30)]
    assert read(file, 80, 1) == CONTENT[80:81]
