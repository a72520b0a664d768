"""Rows of a case for each metric table, and the files of the tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brats import storage
from brats.labels import ED, ET, NCR, REGIONS
from brats.score.lesion_tables import LESIONS
from brats.score.metrics import METRICS
from brats.score.tables import (
    CASE_METRICS,
    NOTEBOOK,
    SLICES,
    check_rows,
    metrics_path,
    read_case_metrics,
    score_rows,
)

KINDS = {"cases": CASE_METRICS, "slices": SLICES, "notebook": NOTEBOOK, "lesions": LESIONS}


def rows_of_case(**options: Any) -> dict[str, list[dict[str, Any]]]:
    """A case of three slices whose ET is missed."""
    reference, predicted = np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8)
    reference[1, 1, :3] = [NCR, ED, ET]
    predicted[1, 1, :2] = [NCR, ED]
    return score_rows(
        case_id="a_1",
        patient_id="a",
        split="test",
        reference=reference,
        predicted=predicted,
        spacing_shw_mm=(5.0, 1.0, 1.0),
        n_outside=52,
        first_slice=20,
        rules="gli",
        **options,
    )


def test_rows_of_a_case_have_the_columns_of_their_tables() -> None:
    for name, rows in rows_of_case().items():
        assert all(list(row) == KINDS[name].schema.names for row in rows), name


def test_rows_of_a_case_survive_json() -> None:
    rows = rows_of_case()
    assert json.loads(json.dumps(rows)) == rows


def test_rows_of_a_case_without_some_regions_fit_their_tables_with_nulls_in_place_of_scores() -> None:
    rows = rows_of_case(regions=["WT"])
    assert {row["region"] for row in rows["lesions"]} == {"WT"}
    assert {name: [list(row) for row in rows[name]] for name in rows if name != "lesions"} == {
        name: [list(row) for row in all_rows] for name, all_rows in rows_of_case().items() if name != "lesions"
    }
    for name, kind in KINDS.items():
        check_rows(kind, rows[name])
        assert kind.table(rows[name]).to_pylist() == rows[name]
    assert [row["dice"] is None for row in rows["cases"]] == [False, True, True]
    assert {row["dice"] for row in rows["slices"] if row["region"] != "WT"} == {None}
    assert {row["averaging"].partition(" ")[2] for row in rows["notebook"]} == {"over 2 labels"}


def test_rows_of_a_case_hold_its_scores_in_the_full_volume() -> None:
    rows = rows_of_case()
    assert [row["region"] for row in rows["cases"]] == ["WT", "TC", "ET"]
    et = rows["cases"][2]
    assert (et["dice"], et["precision"], et["reference_ml"]) == (0, None, 0.005)
    assert et["accuracy"] == 0.99
    assert [row["slice_index"] for row in rows["slices"]] == [20] * 3 + [21] * 3 + [22] * 3
    assert {row["value"] for row in rows["notebook"] if row["metric"] == "accuracy"} == {0.99}


def test_entropy_is_of_each_slice_and_summed_for_the_case_and_null_where_it_is_not_known() -> None:
    case = rows_of_case(entropy_bits={"WT": np.array([0.5, 2.0, 0.25])})
    assert [row["entropy_bits"] for row in case["cases"]] == [2.75, None, None]
    of_wt = [row["entropy_bits"] for row in case["slices"] if row["region"] == "WT"]
    assert of_wt == [0.5, 2.0, 0.25]
    assert {row["entropy_bits"] for row in case["slices"] if row["region"] != "WT"} == {None}


def test_conventions_state_every_metric_and_what_each_region_unites() -> None:
    assert {metric.name: metric.convention for metric in METRICS}.items() <= CASE_METRICS.conventions.items()
    assert CASE_METRICS.conventions["region"].startswith("WT = NCR + ED + ET, TC = NCR + ET, ET;")
    assert NOTEBOOK.conventions["averaging"].endswith("background, NCR, ED, ET")


def test_case_metrics_are_read_with_nulls_as_nan(tmp_path: Path) -> None:
    rows = [{**row, "precision": None} for row in rows_of_case()["cases"]]
    storage.write_table(metrics_path(str(tmp_path), "cases"), CASE_METRICS, CASE_METRICS.table(rows))
    metrics = read_case_metrics(str(tmp_path))
    assert list(metrics["region"]) == list(REGIONS)
    assert metrics["dice"].tolist() == pytest.approx([0.8, 2 / 3, 0])
    assert metrics["precision"].dtype == float
    assert metrics["precision"].isna().all()
