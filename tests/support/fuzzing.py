"""What the tests that mutate files share: cheap choices that hypothesis can vary and shrink, and its settings."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st


class Choices:
    """A sequence of choices, read off a few bytes. Where these end, the first of the alternatives is taken."""

    def __init__(self, tape: bytes) -> None:
        self._tape = tape
        self._position = 0

    def __call__(self, n: int) -> int:
        """One of n alternatives, counted from 0."""
        taken = self._tape[self._position : self._position + 4]
        self._position += 4
        return int.from_bytes(taken, "big") % n

    def __repr__(self) -> str:
        return f"Choices({self._tape!r})"


def choices() -> st.SearchStrategy[Choices]:
    """One draw for them all, where a draw for each takes longer than reading the file."""
    return st.binary(min_size=80, max_size=80).map(Choices)


def mutations(n: int) -> settings:
    """So many examples, the same in every run, with nothing kept and no limit of time."""
    return settings(
        max_examples=n,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
