"""The course of a run: glance, curves, flow."""

import math
import re
from dataclasses import replace

import pandas as pd

from brats.report.course import curves_section, flow_section, glance_section
from brats.report.findings import Findings, Scores
from tests.support.reports import history_frame
from tests.unit.report.test_results import summary_row

ROW = {"patient_id": "p", "tumour_per_slice": [0, 3]}
RUN = Findings(
    folder="/runs/<a>",
    job="train",
    config={"preset": "demo", "encoder": "resnet", "modalities": ["t1"], "device": "cpu"},
    histories={"": history_frame()},
    split=[{**ROW, "case_id": "a", "split": "train"}, {**ROW, "case_id": "b", "split": "test"}],
    predictions={"b": "/runs/a/test"},
)


def with_scores(found: Findings) -> Findings:
    tables = {"summary": pd.DataFrame([summary_row("WT", "dice", "brats", 0.9)])}
    return replace(found, scores=Scores(tables=tables, conventions={}))


def test_the_glance_has_the_mean_dice_of_each_region_and_the_cost() -> None:
    html = glance_section(with_scores(RUN), {"epoch": 2, "val_dice": 0.8})
    assert "<b>0.900</b> <span>[0.800, 1.000]</span>" in html
    assert "<dd>2 of 1 patient: train 1, test 1</dd>" in html
    assert "<dd>3 epochs in 0.1 min</dd>" in html
    assert "<dd>epoch 2, validation Dice 0.800</dd>" in html
    assert "/runs/&lt;a&gt;" in html


def test_the_glance_has_the_hardware_of_all_networks_or_says_that_none_is_recorded() -> None:
    html = glance_section(replace(RUN, hardware=["1 worker on <a> CPU", "2 workers"]), {})
    assert "<dt>hardware</dt><dd>1 worker on &lt;a&gt; CPU | 2 workers</dd>" in html
    assert "<dt>hardware</dt><dd>not recorded</dd>" in glance_section(RUN, {})
    assert "<dt>hardware</dt>" not in glance_section(Findings(folder="a"), {})


def test_without_scores_the_glance_says_so() -> None:
    assert "Nothing is scored here" in glance_section(Findings(folder="a"), {})


def test_curves_mark_the_best_epoch_and_leave_out_epochs_that_were_not_validated() -> None:
    history = history_frame().assign(val_dice=[0.5, math.nan, 0.7], val_loss=[0.5, math.nan, 0.7])
    html = curves_section({"": history})
    assert html.count("<svg viewBox") >= 5
    losses = html.partition("<figcaption")[0]
    assert losses.count("<circle") == 3
    assert losses.count("<polygon") == 2


def test_each_network_has_its_curves_under_its_name() -> None:
    html = curves_section({"fold_<0>": history_frame(), "fold_1": history_frame()})
    assert re.findall(r"<summary>(.*?)</summary>", html) == ["fold_&lt;0&gt;", "fold_1"]
    assert curves_section({}) == ""


def test_a_history_of_before_there_was_a_column_has_curves_of_the_others() -> None:
    history = history_frame().drop(columns=["train_accuracy", "val_accuracy", "train_dice_wt"])
    html = curves_section({"": history})
    assert "Accuracy of voxels, background included: no values" in html


def test_the_flow_counts_cases_slices_and_steps() -> None:
    html = flow_section(RUN, 3, "DRAWING")
    assert "<span>2 cases, 4 slices; 3 rejected</span>" in html
    assert "<span>3 epochs, 30 slices, 6 steps</span>" in html
    assert "<span>1 mask; 0 rejected</span>" in html
    assert "<span>nothing yet</span>" in html
    assert "DRAWING" in html
