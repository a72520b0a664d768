"""gzip data inflated up to a known size: whole by libdeflate, in every other form by isal."""

import gzip
import tracemalloc

import pytest

from brats.data import inflate as module
from brats.data.inflate import inflate, inflate_start
from brats.errors import CaseError

DATA = bytes(range(256)) * 40
MEMBER = gzip.compress(b"more", mtime=0)  # of the same bytes in each process that collects the tests


def test_one_member_of_the_size_expected_is_inflated_by_libdeflate_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module, "isal_zlib")
    assert bytes(inflate("x", gzip.compress(DATA), len(DATA))) == DATA


@pytest.mark.parametrize("n_members", [1, 2, 7])
@pytest.mark.parametrize("behind", [b"", bytes(512), b"more", MEMBER, MEMBER[:-3]])
def test_members_are_put_together_up_to_the_size_expected(n_members: int, behind: bytes) -> None:
    size = len(DATA) // n_members + 1
    members = [gzip.compress(DATA[start : start + size]) for start in range(0, len(DATA), size)]
    content = b"".join(members) + (b"" if n_members > 1 else behind)
    assert bytes(inflate("x", content, len(DATA))) == DATA


@pytest.mark.parametrize("n_bytes", [1, 100, len(DATA) - 1])
def test_no_more_than_the_size_expected_and_one_byte_is_inflated(n_bytes: int) -> None:
    assert bytes(inflate("x", gzip.compress(DATA), n_bytes)) == DATA[: n_bytes + 1]


def test_fewer_bytes_than_expected_are_all_there_are() -> None:
    assert bytes(inflate("x", gzip.compress(DATA), len(DATA) + 5)) == DATA


def test_memory_is_not_taken_for_bytes_that_are_not_expected() -> None:
    content = gzip.compress(bytes(2**24))
    tracemalloc.start()
    try:
        inflate("x", content, 1000)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("place", [-8, -1, 30])
def test_damaged_data_are_refused(place: int) -> None:
    content = bytearray(gzip.compress(DATA))
    content[place] ^= 0x55
    with pytest.raises(CaseError, match="damaged gzip data"):
        inflate("x", bytes(content), len(DATA))


def test_data_without_their_checksum_are_refused() -> None:
    with pytest.raises(CaseError, match="truncated: the checksum at the end of its gzip data is missing"):
        inflate("x", gzip.compress(DATA)[:-1], len(DATA))


def test_the_start_is_inflated_without_the_rest() -> None:
    assert inflate_start("x", gzip.compress(DATA)[:-100], 348) == (DATA[:348], False)
    assert inflate_start("x", gzip.compress(DATA), 2 * len(DATA)) == (DATA, True)
