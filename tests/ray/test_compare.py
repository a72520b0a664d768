"""A comparison of tiny presets on an embedded Ray: one that fails is named, a rerun does what is missing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brats.config import CompareConfig, PrepareConfig, Preset
from brats.errors import BratsError
from brats.pipeline.prepare import prepare
from brats.pipeline.several.compare import Comparison, compare
from brats.presets import PRESETS, NamedPreset
from tests.support.synthetic import write_cases

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]

TINY: dict[str, Any] = {
    "encoder": "tu-test_resnet",
    "decoder_channels": (8, 8, 8, 8, 8),
    "batch_size": 8,
    "learning_rate": 3e-3,
    "warmup_steps": 1,
    "augmentation": "flips",
    "tune": False,
}


@pytest.fixture
def prepared(tmp_path: Path) -> str:
    write_cases(tmp_path / "cases", 8, shape=(32, 30, 10))
    data = str(tmp_path / "prepared")
    prepare(PrepareConfig(data=str(tmp_path / "cases"), out=data, val_fraction=0.2, test_fraction=0.3))
    return data


def test_a_preset_that_fails_is_named_and_a_rerun_trains_only_what_is_missing(
    prepared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[Preset, dict[str, Any]] = {
        "brats": {**TINY, "decoder_channels": (16, 8, 8, 8, 8)},
        "t1-slices": {**TINY, **PRESETS["t1-slices"].settings},
        "demo": {"encoder": "no-such-encoder"},
    }
    for name, values in settings.items():
        monkeypatch.setitem(PRESETS, name, NamedPreset(text="", settings=values))
    out = tmp_path / "out"

    def compared(*presets: Any) -> Comparison:
        config = CompareConfig(data=prepared, out=str(out), presets=presets, steps=2, precision="fp32")
        return compare(config)

    failed = compared("brats", "demo")
    assert set(pd.read_parquet(out / "comparison.parquet").preset) == {"brats"}
    assert "no-such-encoder" in failed.facts.failures["demo, seed 0"]
    with pytest.raises(BratsError, match="trainings that failed: demo, seed 0"):
        failed.check()

    kept = out / "brats" / "seed_0" / "model" / "model.safetensors"
    written, timing = kept.stat().st_mtime_ns, json.loads((out / "timing.json").read_text())
    comparison = compared("brats", "t1-slices")
    comparison.check()
    assert kept.stat().st_mtime_ns == written
    assert json.loads((out / "timing.json").read_text()) != timing  # it has another model
    table = pd.read_parquet(out / "comparison.parquet")
    dice = table[(table.metric == "dice") & (table.convention == "brats") & table.seed.isna()].set_index("preset")
    n_patients = comparison.facts.n_patients
    assert list(dice.n["brats"]) == [n_patients] * 3
    assert list(dice.n["t1-slices"]) == list(dice.n_pairs["t1-slices"]) == [n_patients, 0, 0]
    costs = dice[["n_parameters", "training_minutes", "seconds_per_case", "peak_memory_mb"]]
    assert (costs > 0).all().all()
    assert costs.n_parameters["brats"].iloc[0] > costs.n_parameters["t1-slices"].iloc[0]
    assert "| `t1-slices`" in (out / "comparison.md").read_text()
    assert_null_and_not_0_where_no_region_is_predicted(out / "t1-slices" / "seed_0")


def assert_null_and_not_0_where_no_region_is_predicted(run: Path) -> None:
    """Of a run of the whole tumour alone."""
    (epoch,) = pd.read_parquet(run / "history.parquet").to_dict("records")
    assert epoch["val_dice"] == epoch["val_dice_wt"]
    assert np.isnan([epoch["val_dice_tc"], epoch["train_dice_et"]]).all()
    card = json.loads((run / "model" / "model.json").read_text())
    assert card["outputs"] == {"kind": "whole-tumour", "names": ["WT"]}
    metrics = run / "test" / "metrics"
    cases = pd.read_parquet(metrics / "cases.parquet").set_index("region")
    assert cases.loc["WT", "dice"].notna().all()
    assert cases.loc[["TC", "ET"], ["dice", "hd95_mm", "accuracy", "n_predicted_voxels"]].isna().all(axis=None)
    summary = pd.read_parquet(metrics / "summary.parquet").query("subset == 'all' and metric == 'dice'")
    n_cases = len(cases.loc[["WT"]])
    assert dict(summary.groupby("region").n.sum()) == {"WT": n_cases, "TC": 0, "ET": 0, "all labels": n_cases}
    drawn = {path.name for path in (run / "figures").iterdir()}
    assert {"learning_curves.png", "distributions.png", "case_best.png"} <= drawn
