"""Reliability diagrams, QU-BraTS curves and the ranking."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd

from brats.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from brats.report.findings import Scores
from brats.report.reliability import add_up, calibration, reliability_section
from tests.support.drawing import make_case
from tests.support.reports import CERTAIN, UNSURE, layers_of

UNCERTAINTY = pd.DataFrame([{"case_id": "a", "region": "WT", "ece": 0.1}])


def test_voxels_of_the_brain_are_counted_by_level_and_by_the_reference() -> None:
    layers = layers_of(make_case(), 0, probabilities=True)
    counts = calibration(layers)["ET"]
    assert layers.reference is not None
    n_et = int((layers.reference == 3).sum())
    assert counts.shape == (256, 2)
    assert counts[CERTAIN].tolist() == [0, n_et]
    assert counts[UNSURE].tolist() == [50 * 42 * 6 - n_et, 0]
    assert counts.sum() == 50 * 42 * 6


def test_without_reference_or_probabilities_nothing_is_counted() -> None:
    layers = layers_of(make_case(), probabilities=True)
    assert calibration(replace(layers, probabilities={})) == {}
    assert calibration(replace(layers, case=replace(layers.case, labels=None))) == {}


def test_counts_of_cases_are_added_up() -> None:
    ones = np.ones((256, 2), np.int64)
    total = add_up([{"WT": ones}, {"WT": ones, "ET": ones}, {}])
    assert {name: int(counts[0, 0]) for name, counts in total.items()} == {"WT": 2, "ET": 1}


def test_the_diagram_has_the_share_of_the_reference_by_probability() -> None:
    counts = np.zeros((256, 2), np.int64)
    counts[51] = 80, 20  # of p = 0.2 a fifth: on the diagonal
    counts[204] = 1, 1  # too few to be drawn
    scores = Scores(tables={"uncertainty": UNCERTAINTY}, conventions={})
    html = reliability_section(scores, {"WT": counts})
    drawing, bottom = html.partition("<figcaption")[0], HEIGHT - BOTTOM
    assert [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawing)] == [
        (round(LEFT + 0.2 * (WIDTH - RIGHT - LEFT), 1), round(bottom - 0.2 * (bottom - TOP), 1))
    ]
    assert "<title>WT: 100 voxels</title>" in drawing


def test_without_probabilities_the_section_says_how_to_get_the_diagram() -> None:
    curves = pd.DataFrame(
        [
            {"case_id": name, "region": "WT", "threshold": tau, "dice": dice, "ftp": 0.0, "ftn": 0.0}
            for name, dice in (("a", 0.5), ("b", 0.7))
            for tau in (0, 100)
        ]
    )
    ranking = pd.DataFrame([{"region": "WT", "n": 2, "spearman": None, "n_bad": 1, "auroc": 0.75}])
    tables = {"uncertainty": UNCERTAINTY, "uncertainty_curves": curves, "ranking": ranking}
    html = reliability_section(Scores(tables=tables, conventions={}), {})
    assert "predict with --probabilities" in html
    assert html.count("<figure") == 3
    assert "<td>WT</td><td>2</td><td>\N{EN DASH}</td><td>1</td><td>0.750</td>" in html


def test_tables_without_uncertainty_have_no_section() -> None:
    assert reliability_section(None, {}) == ""
    assert reliability_section(Scores(tables={}, conventions={}), {}) == ""
