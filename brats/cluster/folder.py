"""The folder of the embedded Ray, for its sockets, logs and spilled objects: short, and closed to other users."""

import os

from brats.errors import ConfigError
from brats.storage.user_folder import candidates, user_folder

SOCKET_BYTES = 107  # the longest path of a Unix socket
LONGEST_SOCKET = "/ray/session_2026-01-31_10-20-30_123456_4194304/sockets/plasma_store"  # of Ray, below the folder
SHARED_MEMORY = "/dev/shm"
MOST_BYTES = SOCKET_BYTES - len(LONGEST_SOCKET)


def choose_folder() -> str:
    """The folder that RAY_TMPDIR is to name: what it names already, else one that only this user can open.

    Ray lets everybody read and write what it keeps, spilled slices among it; the folder around it does not.

    Raises ConfigError naming RAY_TMPDIR where it cannot be used, or is not set and none can be had.
    """
    named = os.environ.get("RAY_TMPDIR")
    if not named:
        return _own_folder()
    if problem := _problem(named):
        raise ConfigError(f"RAY_TMPDIR={named}: {problem}; set it to a short folder that you can write to")
    return named


def _own_folder() -> str:
    folder = user_folder(MOST_BYTES)
    if folder is None:
        raise ConfigError(
            f"RAY_TMPDIR: Ray finds no folder for its sockets and logs: {', '.join(candidates())} are longer than "
            f"{MOST_BYTES} bytes, belong to another user or cannot be written; set it to a short folder of your own"
        )
    return folder


def _problem(folder: str) -> str:
    """Why Ray cannot use a folder that the user has named; "" where it can."""
    if not os.path.isabs(folder):
        return "not an absolute path"
    if len(os.fsencode(folder)) > MOST_BYTES:
        return f"{len(os.fsencode(folder))} bytes long, {MOST_BYTES} at most leave room for Ray's sockets"
    try:
        os.makedirs(os.path.join(folder, "ray"), exist_ok=True)
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    return "" if os.access(os.path.join(folder, "ray"), os.W_OK | os.X_OK) else "cannot be written"


def objects_on_disk(store_bytes: float, shared_memory: str = SHARED_MEMORY) -> str:
    """That Ray keeps shared objects in its folder, for the user; "" where they fit into the shared memory.

    A container often has 64 MB of that. Ray then maps a file, which costs little on a fast disk: 1 GiB went through
    the store in 0.7 to 1.1 s, and in 0.5 to 1.0 s in memory (two cores, 2026-11-26).
    """
    if not os.path.isdir(shared_memory):  # Linux alone has it
        return ""
    status = os.statvfs(shared_memory)
    free = status.f_frsize * status.f_bavail
    if free >= store_bytes:
        return ""
    return (
        f"{shared_memory} has {free / 1e9:.2f} GB: shared objects, up to {store_bytes / 1e9:.1f} GB, lie in "
        f"{os.environ['RAY_TMPDIR']}"
    )
