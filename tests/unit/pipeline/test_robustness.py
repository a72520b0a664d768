"""What the robustness job asks of prediction, and what it does where there is nothing to compare."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from brats.config import PredictConfig, RobustnessConfig
from brats.data.degrade import Degradation, degradations
from brats.errors import BratsError
from brats.pipeline import robustness as module
from brats.pipeline.robustness import predict_config, read_modalities, score_all
from tests.support.bundles import save_undecided_bundle

CONFIG = RobustnessConfig(
    model="/run", data="/data", out="/out", split="test", batch_size=3, workers=2, strict=True, wait_minutes=1
)


def test_cases_are_predicted_with_the_options_of_the_job_into_a_folder_of_their_degradation() -> None:
    assert predict_config(CONFIG, "blur-mild") == PredictConfig(
        model="/run",
        data="/data",
        out="/out/blur-mild",
        split="test",
        batch_size=3,
        workers=2,
        strict=True,
        wait_minutes=1,
    )


def test_intact_cases_come_first_then_each_degradation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, str]] = []

    def predict(config: PredictConfig, degradation: Degradation | None) -> SimpleNamespace:
        asked.append((config.out, degradation.name if degradation else ""))
        return SimpleNamespace(out=config.out)

    monkeypatch.setattr(module, "predict", predict)
    monkeypatch.setattr(module, "read_case_metrics", lambda out: pd.DataFrame({"out": [out]}))
    scores = score_all(CONFIG, degradations(["missing"], ["t1", "t2"]))
    names = ["intact", "missing-t1", "missing-t2"]
    assert asked == list(zip([f"/out/{name}" for name in names], ["", *names[1:]], strict=True))
    assert {name: rows["out"][0] for name, rows in scores.items()} == {name: f"/out/{name}" for name in names}
    assert capsys.readouterr().out.splitlines()[1] == "degrade  missing-t1, 2 of 3"


def test_cases_without_a_reference_end_the_job_after_the_intact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def predict(config: PredictConfig, degradation: Degradation | None) -> SimpleNamespace:
        assert degradation is None
        asked.append(config.out)
        return SimpleNamespace(out=config.out)

    monkeypatch.setattr(module, "predict", predict)
    monkeypatch.setattr(module, "read_case_metrics", lambda _: pd.DataFrame())
    with pytest.raises(BratsError, match=r"^/data: no case has a reference segmentation"):
        score_all(CONFIG, degradations(["noise"], []))
    assert asked == ["/out/intact"]


def test_what_can_be_missing_is_what_the_model_takes(tmp_path: Path) -> None:
    assert read_modalities(str(save_undecided_bundle(tmp_path / "model"))) == ("flair", "t1ce")
