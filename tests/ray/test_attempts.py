"""Attempts per case: a case that keeps killing its process is refused."""

import pytest

from brats.cluster.attempts import MOST_ATTEMPTS, begin, start_counter
from brats.errors import CaseError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


def test_case_is_begun_three_times_and_then_refused_with_the_reason_and_a_remedy() -> None:
    counter = start_counter()
    for _ in range(MOST_ATTEMPTS):
        begin(counter, "large", "predicting", "")
    with pytest.raises(CaseError) as refused:
        begin(counter, "large", "predicting", "use a smaller --batch-size")
    assert refused.value.reason == (
        "predicting it killed 3 processes, most likely out of memory; use a smaller --batch-size"
    )
    assert refused.value.transient


def test_cases_and_steps_are_counted_by_themselves() -> None:
    counter = start_counter()
    for step in ("reading", "predicting"):
        for case_id in ("a", "b"):
            for _ in range(MOST_ATTEMPTS):
                begin(counter, case_id, step, "")
    with pytest.raises(CaseError, match="reading it killed 3 processes"):
        begin(counter, "a", "reading", "")
