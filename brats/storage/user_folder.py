"""A temporary folder that this user alone can open, for what the libraries of a job keep outside of --out."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

FALLBACKS = ("/tmp", "/var/tmp")  # where $TMPDIR cannot be used


def user_folder(most_bytes: int | None = None) -> str | None:
    """`brats-<uid>` below $TMPDIR, /tmp or /var/tmp: the first that is, or can be made, this user's alone.

    most_bytes: of its path

    None where none can be had: other users may hold the name, or the folders cannot be written.
    """
    for folder in candidates():
        if (most_bytes is None or len(os.fsencode(folder)) <= most_bytes) and _is_private(folder):
            return folder
    return None


def candidates() -> Iterator[str]:
    """The folders that are tried, in order."""
    for root in dict.fromkeys((os.environ.get("TMPDIR") or "/tmp", *FALLBACKS)):
        yield os.path.join(os.path.abspath(root), f"brats-{os.getuid()}")


def _is_private(folder: str) -> bool:
    """Make a folder unless it is there; whether it is this user's, closed to others and can be written."""
    try:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)  # not through a link, which anybody could have put there
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False
        os.chmod(folder, 0o700)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
