"""Columns and rows of lesions by every convention, and the figures of the official codes on altered real masks."""

import csv
from collections.abc import Iterator
from glob import glob
from typing import Any, get_args

import nibabel as nib
import numpy as np
import pytest

from brats.config import RulesName
from brats.data.codings import BRATS_2018
from brats.labels import ED, ET, NCR, REGIONS, Labels, region_mask
from brats.score.components import RegionPair
from brats.score.lesion_tables import CASE_COLUMNS, CONVENTIONS, LESIONS, lesion_columns, rules_line
from brats.score.lesions_2023 import RULES
from brats.score.metrics import case_metrics, count_overlap
from brats.score.surface import Spacing
from brats.score.tables import CASE_METRICS, check_rows
from tests.support import ROOT
from tests.support.altered import ALTERATIONS, GRIDS, around_tumour
from tests.support.lesions import UNIT

OFFICIAL = ROOT / "tests" / "data" / "official_lesion_scores.csv"
EXAMPLE = {
    "dice": 0.921,
    "hd95_mm": 1.414,
    "lesion_dice_2023": 0.462,
    "lesion_hd95_mm_2023": 187.707,
    "f1_2026": 0.667,
    "lesion_dice_2026": 0.924,
    "panoptic_quality_2026": 0.616,
    "lesion_hd95_mm_2026": 1.414,
}
"""What docs/scoring.md states, to three digits."""


def columns_of(
    reference: Labels, predicted: Labels, *, regions: Any = REGIONS, first_voxel: tuple[int, int, int] = (0, 0, 0)
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    overlap = count_overlap(reference, predicted, UNIT)
    whole = case_metrics(overlap, regions)
    return lesion_columns(overlap, "gli", {region: whole[region]["hd95_mm"] for region in regions}, first_voxel)


def tumour() -> Labels:
    """Slices with a tumour of NCR, ED and ET."""
    labels = np.zeros((12, 14, 16), np.uint8)
    labels[2:8, 3:9, 4:10] = ED
    labels[3:7, 4:8, 5:9] = ET
    labels[4:6, 5:7, 6:8] = NCR
    return labels


def test_columns_and_rows_are_those_of_their_tables() -> None:
    columns, rows = columns_of(tumour(), tumour())
    for region in REGIONS:
        assert list(columns[region]) == [name for name, _ in CASE_COLUMNS]
    assert [list(row) for row in rows] == [LESIONS.schema.names[2:]] * len(rows)
    check_rows(LESIONS, rows)
    assert {(row["region"], row["convention"]) for row in rows} == {
        (region, convention.name) for region in REGIONS for convention in CONVENTIONS
    }


def test_every_column_states_its_convention_and_carries_its_year() -> None:
    for convention in CONVENTIONS:
        year = convention.name[-4:]
        assert all(metric.name.endswith(f"_{year}") for metric in convention.metrics)
        assert CASE_METRICS.conventions[convention.name] == LESIONS.conventions[convention.name]
    assert {name for name, _ in CASE_COLUMNS} <= CASE_METRICS.conventions.keys()


def test_every_challenge_that_an_option_names_has_rules() -> None:
    assert set(RULES) == set(get_args(RulesName))


def test_centroids_are_indices_of_the_source_volume() -> None:
    _, rows = columns_of(tumour(), tumour(), first_voxel=(40, 20, 10))
    centroids = {(row["centroid_i"], row["centroid_j"], row["centroid_k"]) for row in rows}
    assert centroids == {(20 + 5.5, 10 + 6.5, 40 + 4.5)}


def test_a_region_that_the_model_does_not_predict_has_null_columns_and_no_rows() -> None:
    columns, rows = columns_of(tumour(), tumour(), regions=["WT"])
    assert {row["region"] for row in rows} == {"WT"}
    assert {columns["ET"].pop("challenge_rules"), *columns["ET"].values()} == {"gli", None}
    assert columns["WT"]["lesion_dice_2023"] == 1


def test_one_prediction_has_the_scores_that_the_page_on_scoring_states() -> None:
    """A ball of 40 mm in diameter, found but for its outermost voxels, and a false cube of 6 mm far off."""
    grid = np.indices((90, 60, 60)) - np.array([25, 30, 30])[:, None, None, None]
    reference, predicted = np.zeros((90, 60, 60), np.uint8), np.zeros((90, 60, 60), np.uint8)
    reference[(grid**2).sum(axis=0) <= 20**2] = ET
    predicted[(grid**2).sum(axis=0) <= 19**2] = ET
    predicted[80:86, 5:11, 5:11] = ET
    scores = (
        case_metrics(count_overlap(reference, predicted, UNIT))["ET"] | columns_of(reference, predicted)[0]["ET"]
    )
    found = {name: round(scores[name], 3) for name in EXAMPLE}
    page = (ROOT / "docs" / "scoring.md").read_text()
    assert found == EXAMPLE
    assert [name for name, value in EXAMPLE.items() if f"| `{name}` | {value:g} |" not in page] == []


def test_the_rules_of_cases_are_counted_by_case_in_one_line() -> None:
    rows = [
        {"case_id": name, "challenge_rules": rules} for name, rules in (("a", "met"), ("b", "gli"), ("c", "met"))
    ]
    assert rules_line([*rows, *rows, {"case_id": "old"}]) == "gli (1 case), met (2 cases)"
    assert rules_line([{"case_id": "old", "challenge_rules": None}]) == ""


@pytest.mark.parametrize(("reference", "predicted"), [(True, False), (False, True)])
def test_ten_thousand_components_are_rows_each(reference: bool, predicted: bool) -> None:
    grid = np.zeros((60, 60, 75), np.uint8)
    grid[::3, ::3, ::3] = ED
    columns, rows = columns_of(grid * np.uint8(reference), grid * np.uint8(predicted), regions=["WT"])
    assert columns["WT"]["n_missed_2026" if reference else "n_false_2026"] == 10_000
    assert len(rows) == 10_000 + (1 if reference else 10_000)  # dilated, the reference is one lesion


def official_rows() -> Iterator[dict[str, str]]:
    with OFFICIAL.open() as file:
        yield from csv.DictReader(line for line in file if not line.startswith("#"))


@pytest.mark.real
def test_scores_by_lesion_are_those_of_the_official_codes(real_data_dir: str) -> None:
    expected: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in official_rows():
        expected.setdefault((row["case_id"], row["alteration"], row["grid"]), []).append(row)
    volumes: dict[str, Labels] = {}
    n_compared = 0
    for (case_id, alteration, grid), rows in expected.items():
        if case_id not in volumes:
            (path,) = glob(f"{real_data_dir}/**/{case_id}_seg.nii*", recursive=True)
            volumes[case_id] = BRATS_2018.decode(np.asarray(nib.Nifti1Image.from_filename(path).dataobj))
        every, spacing_mm = GRIDS[grid]
        reference = around_tumour(volumes[case_id], every)
        n_compared += compare_with_official(reference, ALTERATIONS[alteration](reference), spacing_mm, rows)
    assert n_compared == sum(len(rows) for rows in expected.values()) > 0


def compare_with_official(
    reference: Labels, predicted: Labels, spacing_mm: Spacing, rows: list[dict[str, str]]
) -> int:
    """Compare each row with ours; how many there were."""
    n_compared = 0
    for region in REGIONS:
        masks = [region_mask(labels, region) for labels in (reference, predicted)]
        for convention in CONVENTIONS:
            # panoptica 2.1.4 reads files with SimpleITK, whose arrays are Z Y X, and their spacing as X Y Z
            x, y, z = spacing_mm if convention.name.startswith("lesion") else spacing_mm[::-1]
            pair = RegionPair.of(masks[0], masks[1], (0, 0, 0), (x, y, z))
            own = [row for row in rows if (row["region"], row["convention"]) == (region, convention.name)]
            for row in own:
                lesions = convention.lesions(pair, row["rules"] or "gli")  # type: ignore[arg-type]
                ours = {metric.name.rpartition("_")[0]: metric.value(lesions) for metric in convention.metrics}
                for name, text in row.items():
                    if name in ours and name != "n_lesions":
                        value = None if text == "" else float(text)
                        assert ours[name] == pytest.approx(value, abs=1e-6), (row, ours)
                n_compared += 1
    return n_compared
