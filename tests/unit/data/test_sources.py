"""Source files: the same or others, by place, size and stamp, and by content where those leave it open."""

from dataclasses import replace

import pytest

from brats.data.sources import (
    SourceFile,
    Sources,
    content_hash,
    from_rows,
    only_content_tells,
    same_sources,
    source_bytes,
    source_hash,
    to_rows,
    with_known_hashes,
)


def files(**changes: str | int) -> Sources:
    """An image and a segmentation that were read; the segmentation changed as stated."""
    image = SourceFile(kind="t1", size=10, hash="aa", path="/data/x_t1.nii", stamp="1")
    mask = SourceFile(kind="seg", size=5, hash="bb", path="/data/x_seg.nii", stamp="2")
    return image, replace(mask, **changes)  # type: ignore[arg-type]


def unread(sources: Sources) -> Sources:
    return tuple(replace(file, hash="") for file in sources)


READ = files()


def test_hash_of_a_file_is_xxh3_of_128_bits() -> None:
    assert content_hash(b"") == "99aa06d3014798d86001c324468d497f"  # of the specification of XXH3


def test_files_where_and_as_they_were_have_the_hashes_of_before() -> None:
    assert with_known_hashes(READ, unread(READ)) == READ
    assert same_sources(READ, with_known_hashes(READ, unread(READ)))


@pytest.mark.parametrize(
    "changes", [{"stamp": "3"}, {"path": "/moved/x_seg.nii"}, {"size": 6}, {"kind": "t2"}, {"stamp": ""}]
)
def test_of_a_file_touched_moved_or_resized_no_hash_is_known(changes: dict[str, str | int]) -> None:
    image, mask = with_known_hashes(READ, unread(files(**changes)))
    assert (image.hash, mask.hash) == ("aa", "")
    assert not same_sources(READ, (image, mask))


@pytest.mark.parametrize(
    ("changes", "open_question"),
    [
        ({"stamp": "3"}, True),
        ({"path": "/moved/x_seg.nii"}, True),
        ({"size": 6, "stamp": "3"}, False),
        ({"kind": "t2"}, False),
        ({}, False),
    ],
)
def test_only_content_tells_files_of_one_size_apart(changes: dict[str, str | int], open_question: bool) -> None:
    now = with_known_hashes(READ, unread(files(**changes)))
    assert only_content_tells(READ, now) is open_question


def test_content_is_not_asked_for_where_nothing_of_before_was_read_or_a_file_is_known_to_differ() -> None:
    now = unread(files(stamp="3"))
    assert not only_content_tells((), now)
    assert not only_content_tells(unread(READ), now)
    assert not only_content_tells(READ, (replace(READ[0], hash="cc"), now[1]))
    assert not only_content_tells(READ, READ[:1])


def test_equal_content_is_the_same_wherever_it_lies_and_in_any_order() -> None:
    moved = tuple(replace(file, path=f"/moved/{file.kind}", stamp="9") for file in reversed(READ))
    assert same_sources(READ, moved)
    assert same_sources(READ, tuple(file.content for file in READ))
    assert source_hash(moved) == source_hash(READ)


@pytest.mark.parametrize("changes", [{"hash": "cc"}, {"hash": ""}, {"size": 6}, {"kind": "t2"}])
def test_other_content_is_not_the_same(changes: dict[str, str | int]) -> None:
    assert not same_sources(READ, files(**changes, stamp="3"))
    assert source_hash(files(**changes)) != source_hash(READ)


def test_a_segmentation_that_is_new_or_gone_is_a_change() -> None:
    assert not same_sources(READ[:1], READ)
    assert not same_sources(READ, READ[:1])


def test_unread_files_are_the_same_by_their_stamp_alone() -> None:
    assert same_sources(unread(READ), unread(READ))
    assert not same_sources(unread(READ), unread(files(stamp="3")))
    assert not same_sources(unread(files(stamp="")), unread(files(stamp="")))
    assert not same_sources((), ())


def test_files_come_back_from_the_rows_of_a_table() -> None:
    assert from_rows(to_rows(READ)) == READ
    assert from_rows(None) == ()
    assert source_bytes(READ) == 15
