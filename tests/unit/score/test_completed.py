"""Results completed by new metrics: what they lack is added, and what is there must be what scoring gives."""

from typing import Any

import pytest

from brats.errors import CaseError
from brats.labels import REGIONS
from brats.score.completed import completed, is_scored, predicted_regions
from brats.score.parts import Part


def case_row(region: str = "WT", **values: Any) -> dict[str, Any]:
    return {"case_id": "a", "patient_id": "p", "split": "test", "region": region, **values}


def slice_row(index: int, **values: Any) -> dict[str, Any]:
    return {"case_id": "a", "slice_index": index, "region": "WT", **values}


PART = Part(
    case_id="a",
    cases=[case_row(dice=0.5, sensitivity=None, entropy_bits=7.5)],
    slices=[slice_row(3, dice=0.5, entropy_bits=0.5)],
    warnings=["odd"],
)
FRESH = {
    "cases": [case_row(dice=0.5, sensitivity=None, nsd_at_1_mm=0.75, entropy_bits=None)],
    "slices": [slice_row(index, dice=1.0 if index != 3 else 0.5, entropy_bits=None) for index in range(6)],
    "notebook": [{"case_id": "a", "metric": "dice", "averaging": "macro", "value": 0.9}],
}


def test_new_columns_and_tables_are_added_and_the_rest_is_kept() -> None:
    found = completed(PART, FRESH, "a.json")
    assert found.cases == [case_row(dice=0.5, sensitivity=None, entropy_bits=7.5, nsd_at_1_mm=0.75)]
    assert found.slices == PART.slices  # those of the crop, without the slices beside it
    assert found.notebook == FRESH["notebook"]
    assert found.warnings == ["odd"]


def test_column_that_was_null_for_want_of_the_metric_is_filled() -> None:
    part = Part(case_id="a", cases=[case_row(dice=0.5, nsd_at_1_mm=None)])
    assert completed(part, FRESH, "a.json").cases[0]["nsd_at_1_mm"] == 0.75


def test_what_scoring_is_given_is_not_compared() -> None:
    part = Part(case_id="a", cases=[{**case_row(dice=0.5), "patient_id": "other", "split": None}])
    (row,) = completed(part, FRESH, "a.json").cases
    assert (row["patient_id"], row["dice"]) == ("other", 0.5)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (Part(case_id="a", cases=[case_row(dice=0.5 + 2**-53)]), "dice of WT is 0.5000000000000001, but 0.5 from"),
        (
            Part(case_id="a", cases=[case_row(sensitivity=0.25)]),
            "sensitivity of WT is 0.25, but None from its mask",
        ),
        (Part(case_id="a", slices=[slice_row(3, dice=0.25)]), "dice of slice 3, WT is 0.25, but 0.5 from its mask"),
        (Part(case_id="a", slices=[slice_row(9, dice=1.0)]), "has a row of slice 9, WT, which its mask and its"),
        (
            Part(case_id="a", notebook=[{"metric": "dice", "averaging": "macro", "value": 0.8}]),
            "value of macro is 0.8, but 0.9 from its mask",
        ),
    ],
)
def test_value_that_differs_is_named_with_both(part: Part, reason: str) -> None:
    with pytest.raises(CaseError, match=reason) as caught:
        completed(part, FRESH, "parts/a.json")
    assert caught.value.path == "parts/a.json"
    assert "give another --out, or predict it again" in caught.value.reason


def test_regions_of_a_model_are_those_with_a_predicted_size() -> None:
    binary = [case_row("WT", n_predicted_voxels=0), case_row("TC", n_predicted_voxels=None)]
    assert predicted_regions([Part(case_id="a", cases=binary), Part(case_id="b")]) == ("WT",)
    unlabelled = Part(case_id="a", uncertainty=[{"region": "ET", "n_predicted_voxels": 4}])
    assert predicted_regions([unlabelled]) == ("ET",)
    assert predicted_regions([Part(case_id="a")]) == tuple(REGIONS)


def test_case_is_scored_where_it_has_rows() -> None:
    assert is_scored(PART)
    assert not is_scored(Part(case_id="a", uncertainty=[{"region": "WT"}]))
