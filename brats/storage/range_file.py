"""File object over an object in a store: one range is held in memory, any other read is one request."""

import io
from collections.abc import Callable
from typing import Any

Fetch = Callable[[int, int], bytes]
"""Reads the bytes [start, stop) of the file in one request."""


class RangeFile(io.RawIOBase):
    """A read-only file of known size with one range of it in memory."""

    def __init__(self, fetch: Fetch, size: int, start: int, held: bytes) -> None:
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._start = start
        self._held = held
        self._position = 0

    def with_range(self, start: int, stop: int) -> "RangeFile":
        """The same file with another range in memory, fetched now."""
        return RangeFile(self._fetch, self._size, start, self._fetch(start, stop))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        start = self._position
        stop = min(start + len(view), self._size)
        if stop <= start:
            return 0
        first = start - self._start
        if first >= 0 and stop - self._start <= len(self._held):
            view[: stop - start] = self._held[first : first + stop - start]
        else:
            view[: stop - start] = self._fetch(start, stop)
        self._position = stop
        return stop - start
