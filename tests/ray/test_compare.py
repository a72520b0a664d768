"""A comparison of tiny presets on a real embedded Ray: complete, resumed, and with one preset that fails."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from brats.config import CompareConfig, PrepareConfig
from brats.errors import BratsError
from brats.pipeline.compare import Comparison, compare
from brats.pipeline.prepare import prepare
from brats.presets import PRESETS
from tests.support.synthetic import write_cases

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]

TINY: dict[str, Any] = {
    "encoder": "tu-test_resnet",
    "decoder_channels": (8, 8, 8, 8, 8),
    "batch_size": 8,
    "learning_rate": 3e-3,
    "warmup_steps": 1,
    "augmentation": "flips",
}


@pytest.fixture
def prepared(tmp_path: Path) -> str:
    write_cases(tmp_path / "cases", 8, shape=(32, 30, 10))
    data = str(tmp_path / "prepared")
    prepare(PrepareConfig(data=str(tmp_path / "cases"), out=data, val_fraction=0.2, test_fraction=0.3))
    return data


def test_presets_are_compared_resumed_and_one_that_fails_is_named(
    prepared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "brats", TINY)
    monkeypatch.setitem(PRESETS, "demo", {**TINY, "decoder_channels": (16, 8, 8, 8, 8)})
    monkeypatch.setitem(PRESETS, "t1", {"encoder": "no-such-encoder"})
    out = tmp_path / "out"

    def compared(*presets: Any) -> Comparison:
        config = CompareConfig(data=prepared, out=str(out), presets=presets, steps=2, precision="fp32")
        return compare(config)

    comparison = compared("brats", "demo")
    comparison.check()
    table = pd.read_parquet(out / "comparison.parquet")
    dice = table[(table.metric == "dice") & (table.convention == "brats") & table.seed.isna()]
    assert list(dice.preset) == ["brats"] * 3 + ["demo"] * 3
    n_patients = comparison.facts.n_patients
    assert set(dice.n) == {n_patients}
    assert list(dice[dice.preset == "demo"].n_pairs) == [n_patients] * 3
    cost = dice.set_index("preset")[["n_parameters", "training_minutes", "seconds_per_case", "peak_memory_mb"]]
    assert (cost > 0).all().all()
    assert cost.n_parameters["demo"].iloc[0] > cost.n_parameters["brats"].iloc[0]
    assert "| `demo`" in (out / "comparison.md").read_text()

    trained = out / "brats" / "seed_0" / "model" / "model.safetensors"
    before = trained.stat().st_mtime_ns, json.loads((out / "timing.json").read_text())
    shutil.rmtree(out / "demo")
    resumed = compared("brats", "demo", "t1")
    assert trained.stat().st_mtime_ns == before[0]
    assert (out / "demo" / "seed_0" / "model" / "model.safetensors").exists()
    assert json.loads((out / "timing.json").read_text()) != before[1]  # one of its models is a new one
    assert list(resumed.facts.failures) == ["t1, seed 0"]
    assert "no-such-encoder" in resumed.facts.failures["t1, seed 0"]
    assert set(pd.read_parquet(out / "comparison.parquet").preset) == {"brats", "demo"}
    with pytest.raises(BratsError, match="trainings that failed: t1, seed 0"):
        resumed.check()
