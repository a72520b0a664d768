"""Ownership of an output folder: one driver at a time writes there; one that is dead or silent is taken over.

A driver names itself in `OUT/.owner.json`, made by one atomic step, and writes that file again every few seconds.
Another finds it there and ends, unless the owner has died on this machine, or is silent for so long that it must
have died elsewhere. Ages are taken from the clock of the disk or store, which is the same for all.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from brats import storage
from brats.cluster.owner import Owner
from brats.console import interrupt_main_thread, say
from brats.errors import BratsError, ConfigError, StorageError
from brats.storage import exclusive


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often an owner writes its file, after what silence it is taken over, and how often others look.

    A silent owner is watched for three beats first: it may just have waited for a store that was away. That ends a
    job after minutes, and so one that is silent for `ended_s` is not watched.
    """

    beat_s: float = 10.0
    silence_s: float = 60.0
    ended_s: float = 600.0
    poll_s: float = 1.0


PACE = Pace()


def owner_path(out: str) -> str:
    """Hidden: no listing of results takes it."""
    return storage.join(out, ".owner.json")


@contextmanager
def owned(out: str, job: str, pace: Pace = PACE) -> Iterator["Ownership"]:
    """Own an output folder for the duration of the block.

    Raises ConfigError where another job is at work there, and BratsError, in the block of the main thread, as soon
    as another has taken the folder over: this process was suspended, or cut off from the store, for too long.
    """
    ownership = Ownership(out, Owner.here(job), pace)
    if not exclusive.is_guarded(out):
        say(job, f"WARNING: {out}: the store has no conditional writes; do not start a second job with this --out")
        ownership.guarded = False
        yield ownership
        return
    claim(out, ownership.owner, pace)
    try:
        with ownership.kept():
            yield ownership
    except BaseException as error:
        if ownership.loss and error is not ownership.loss:
            raise ownership.loss from None
        raise
    finally:
        ownership.release()


def check_free(out: str) -> None:
    """Raise ConfigError where a job of this machine is at work in a folder: soon, before `owned` makes sure."""
    if seen := exclusive.look(owner_path(out)):
        other = Owner.from_bytes(seen.content)
        if other.is_here and not other.is_dead:
            raise _busy(out, other)


def claim(out: str, owner: Owner, pace: Pace = PACE) -> None:
    """Make an owner that of a folder; wait for what tells whether an earlier one is dead.

    Raises ConfigError where it is not.
    """
    path = owner_path(out)
    while not exclusive.create(path, owner.to_bytes()):
        seen = exclusive.look(path)
        if seen is None:  # it has just ended
            continue
        other = Owner.from_bytes(seen.content)
        if other.token == owner.token:  # made by a request whose answer was lost
            return
        end = watch(out, other, seen, owner.job, pace)
        if end and _replace(path, owner, seen):
            say(owner.job, f"{out}: taken over from {other}, which {end}")
            return


def watch(out: str, other: Owner, seen: exclusive.Seen, job: str, pace: Pace) -> str:
    """How another owner has ended, to follow "which"; "" where the folder is no longer its.

    Raises ConfigError as soon as it shows that it has not.
    """
    if other.is_dead:
        return "has died"
    if other.is_here:
        raise _busy(out, other)
    latest: exclusive.Seen | None = seen
    first = time.monotonic()
    if seen.age_s < pace.ended_s:
        left_s = max(pace.silence_s - seen.age_s, 3 * pace.beat_s)
        say(
            job, f"{out}: owned by {other}, last active {seen.age_s:.0f} s ago; waiting up to {left_s:.0f} s for it"
        )
    while latest and latest.version == seen.version:
        watched = time.monotonic() - first >= 3 * pace.beat_s or latest.age_s >= pace.ended_s
        if latest.age_s >= pace.silence_s and watched:
            return f"was silent for {latest.age_s:.0f} s"
        time.sleep(pace.poll_s)
        latest = exclusive.look(owner_path(out))
    if latest and Owner.from_bytes(latest.content) == other:
        raise _busy(out, other)
    return ""


def _busy(out: str, other: Owner) -> ConfigError:
    return ConfigError(
        f"{out}: another job is at work there: {other}; wait for its end, stop it, or choose another --out"
    )


def _replace(path: str, owner: Owner, seen: exclusive.Seen) -> bool:
    """Whether an owner takes the place of the one that was seen; only one of several can."""
    if exclusive.replace(path, owner.to_bytes(), seen.version):
        return True
    latest = exclusive.look(path)  # a lost answer looks like a lost race
    return latest is not None and Owner.from_bytes(latest.content).token == owner.token


class Ownership:
    """A claimed folder: a thread writes its file again and again, and stops the main thread once it is lost."""

    def __init__(self, out: str, owner: Owner, pace: Pace) -> None:
        self.owner = owner
        self.guarded = True
        self.loss: BratsError | None = None
        self._out, self._path, self._pace = out, owner_path(out), pace
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise BratsError where another has taken the folder over: called before what must not be mixed."""
        if self.guarded:
            self._renew(None)
        if self.loss:
            raise self.loss

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the folder for the duration of the block."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        thread = threading.Thread(target=self._beat, args=(in_main_thread,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def release(self) -> None:
        """Remove the file of the owner, if it is still this one's."""
        with suppress(StorageError):  # the next job finds that this process has ended
            seen = exclusive.look(self._path)
            if seen and self._is_ours(seen):
                exclusive.discard(self._path, seen.version)

    def _beat(self, in_main_thread: bool) -> None:
        while not self._ended.wait(self._pace.beat_s):
            with suppress(StorageError):  # away for a while; the next beat finds what has happened meanwhile
                self._renew(self._pace.beat_s)
            if self.loss:
                if in_main_thread:
                    interrupt_main_thread()
                return

    def _renew(self, retry_limit_s: float | None) -> None:
        """Write the file of the owner again; note where it is another's."""
        with self._lock:
            for _ in range(2):  # a lost answer looks like a lost race
                seen = exclusive.look(self._path, retry_limit_s)
                if not seen or not self._is_ours(seen):
                    self.loss = self.loss or self._describe(seen)
                    return
                if exclusive.replace(self._path, self.owner.to_bytes(), seen.version, retry_limit_s):
                    return

    def _is_ours(self, seen: exclusive.Seen) -> bool:
        return Owner.from_bytes(seen.content).token == self.owner.token

    def _describe(self, seen: exclusive.Seen | None) -> BratsError:
        what = f"taken over by {Owner.from_bytes(seen.content)}" if seen else f"{self._path} is gone"
        return BratsError(f"{self._out}: no longer owned by this job ({what}); it stops and writes nothing more")
