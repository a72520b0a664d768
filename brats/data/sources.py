"""Source files of a result, and whether they still match.

Files that lie where they lay, with the size and the stamp they had, are taken for unchanged. Of others the content
decides: it is hashed where it is read to make a result, and kept with that result.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import xxhash


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file that a case is made from.

    kind:        what it is an image of: a modality, or `layouts.SEGMENTATION`
    size:        in bytes
    hash:        of its bytes as stored; "" where they were not read
    path, stamp: as in `storage.FileInfo`; "" where only the content is of interest
    """

    kind: str
    size: int
    hash: str = ""
    path: str = ""
    stamp: str = ""

    @property
    def content(self) -> "SourceFile":
        """The same, wherever it lies."""
        return replace(self, path="", stamp="")


Sources = tuple[SourceFile, ...]
"""The files of one case, each of another kind."""


def content_hash(content: bytes) -> str:
    """A hash of the bytes of a file, in hexadecimal digits: XXH3, 128 bits, as fast as memory is read."""
    return xxhash.xxh3_128_hexdigest(content)


def source_hash(sources: Sources) -> str:
    """One hash for all files of a case: equal where kinds and contents are. For files that were read."""
    return content_hash("\n".join(sorted(f"{file.kind} {file.size} {file.hash}" for file in sources)).encode())


def source_bytes(sources: Sources) -> int:
    """Size of all files of a case together."""
    return sum(file.size for file in sources)


def same_sources(before: Sources, now: Sources) -> bool:
    """Whether two sets of files hold the same; False where that is not known."""
    if before == now:
        return bool(now) and all(file.hash or file.stamp for file in now)
    return _is_read(before) and _is_read(now) and _by_kind(before) == _by_kind(now)


def with_known_hashes(before: Sources, now: Sources) -> Sources:
    """The files found now; those that lie where they lay, with size and stamp of before, with their hash."""
    known = {replace(file, hash=""): file.hash for file in before if file.stamp}
    return tuple(file if file.hash else replace(file, hash=known.get(file, "")) for file in now)


def only_content_tells(before: Sources, now: Sources) -> bool:
    """Whether the files found now have to be read to find out if they are those of before."""
    if same_sources(before, now) or not _is_read(before) or _is_read(now):
        return False
    earlier = {file.kind: file for file in before}
    return earlier.keys() == {file.kind for file in now} and all(
        file.size == earlier[file.kind].size and file.hash in ("", earlier[file.kind].hash) for file in now
    )


def to_rows(sources: Sources) -> list[dict[str, Any]]:
    """As tables and JSON hold them."""
    return [dict(vars(file)) for file in sources]  # asdict, which copies deeply, takes ten times as long


def from_rows(rows: Iterable[Mapping[str, Any]] | None) -> Sources:
    """The inverse of `to_rows`."""
    return tuple(SourceFile(**row) for row in rows or ())


def _is_read(sources: Sources) -> bool:
    return bool(sources) and all(file.hash for file in sources)


def _by_kind(sources: Sources) -> dict[str, SourceFile]:
    return {file.kind: file.content for file in sources}
