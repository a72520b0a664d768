"""Progress and messages of the stages on the console, in the same columns."""

import signal
import sys
import threading
import time
from collections.abc import Iterable

PRINT_EVERY_S, REWRITE_EVERY_S = 10.0, 0.2
LONG_S = 6000  # a time of 100 minutes or more is shown in hours
LINE_WIDTH = 78  # a shorter line is padded, to cover what it rewrites


class Progress:
    """Progress of a stage in one line: rewritten on a terminal, printed every ten seconds elsewhere."""

    def __init__(self, stage: str, total: int, unit: str) -> None:
        self._stage, self._total, self._unit = stage, total, unit
        self._done, self._started = 0, time.monotonic()
        self._shown = self._started
        self._terminal = sys.stdout.isatty()

    def advance(self) -> None:
        self._done += 1
        now = time.monotonic()
        last = self._done == self._total
        if not last and now - self._shown < (REWRITE_EVERY_S if self._terminal else PRINT_EVERY_S):
            return
        self._shown = now
        elapsed = now - self._started
        left = elapsed / self._done * (self._total - self._done)
        timing = duration(elapsed) if last else f"{duration(left)} left"
        line = f"{self._stage:<8} {self._done}/{self._total} {self._unit}, {timing}"
        _print(
            f"\r{line:<{LINE_WIDTH}}" if self._terminal else line,
            end="\n" if last or not self._terminal else "",
        )


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes: `3:07 min`, `2:15 h`."""
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def share_of_time(seconds: float, total_s: float) -> str:
    """Time passed of a total, both in its unit: `12:10 of 60:00 min`, `0:45 of 8:00 h`."""
    if round(total_s) < LONG_S:
        passed, total = (f"{round(each) // 60}:{round(each) % 60:02d}" for each in (seconds, total_s))
        return f"{passed} of {total} min"
    passed, total = (f"{round(each) // 3600}:{round(each) % 3600 // 60:02d}" for each in (seconds, total_s))
    return f"{passed} of {total} h"


def some(names: Iterable[str], at_most: int = 3) -> str:
    """The first of many names, and how many more there are: `a, b, c and 9 more`."""
    first = list(names)
    more = f" and {len(first) - at_most} more" if len(first) > at_most else ""
    return ", ".join(first[:at_most]) + more


def listed(names: Iterable[str], conjunction: str = "and") -> str:
    """All of several names as a sentence has them: `a, b and c`."""
    *others, last = names
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def say(stage: str, message: str) -> None:
    """Print a message of a stage, in the same columns as `Progress`."""
    _print(f"{stage:<8} {message}")


def _print(text: str, end: str = "\n") -> None:
    """Print at once. Where nobody reads any more, the main thread meets the error too: it ends the job."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        if threading.current_thread() is threading.main_thread():
            raise
        interrupt_main_thread()


def interrupt_main_thread() -> None:
    """Stop what the main thread does, as Ctrl-C would; a signal wakes it where it waits."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if callable(signal.getsignal(number)):  # a shell starts what is in the background with SIGINT ignored
            signal.pthread_kill(threading.main_thread().ident or 0, number)
            return
