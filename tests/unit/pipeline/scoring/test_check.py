"""What is scored and into which folder, by the options and by what --predictions is; what is refused."""

from pathlib import Path
from typing import Any

import pytest

from brats import storage
from brats.config import EvaluateConfig
from brats.data.prediction_coding import NNUNET
from brats.errors import ConfigError
from brats.pipeline.scoring.check import MaskEvaluation, PredictionEvaluation, check_evaluation


def masks(folder: Path, **options: Any) -> MaskEvaluation:
    found = check_evaluation(EvaluateConfig(predictions=str(folder), references="/r", out="/o", **options))
    assert isinstance(found, MaskEvaluation)
    return found


def prediction(folder: Path, **options: Any) -> PredictionEvaluation:
    storage.write_json(str(folder / "config.json"), {"job": "predict", "result": {}, "execution": {}})
    found = check_evaluation(EvaluateConfig(predictions=str(folder), **options))
    assert isinstance(found, PredictionEvaluation)
    return found


def test_value_of_prediction_coding_is_checked() -> None:
    config = EvaluateConfig(predictions="p", references="r", out="o", prediction_coding="1=ED,1=ET")
    with pytest.raises(ConfigError, match="--prediction-coding names code 1 twice"):
        check_evaluation(config)


def test_masks_of_another_program_need_references_and_an_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_evaluation(EvaluateConfig(predictions=str(tmp_path)))
    assert str(caught.value) == f"--references and --out: needed, since {tmp_path} was not written by predict.py"
    with pytest.raises(ConfigError, match=r"^--out: needed"):
        check_evaluation(EvaluateConfig(predictions=str(tmp_path), references="r"))
    with pytest.raises(ConfigError, match=r"^--references: needed"):
        check_evaluation(EvaluateConfig(predictions=str(tmp_path), out="/o"))
    assert (masks(tmp_path).references, masks(tmp_path).out) == ("/r", "/o")


def test_spellings_of_a_coding_are_saved_as_one(tmp_path: Path) -> None:
    assert (masks(tmp_path).coding, masks(tmp_path).config.prediction_coding) == (None, "case")
    for spelling in ("nnunet", "decathlon"):
        found = masks(tmp_path, prediction_coding=spelling)
        assert (found.coding, found.config.prediction_coding) == (NNUNET, "nnunet")


def test_predictions_that_are_not_there_are_named_before_an_option_is_missed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--predictions: .*/typo does not exist$"):
        check_evaluation(EvaluateConfig(predictions=str(tmp_path / "typo")))


def test_prediction_needs_neither_and_is_completed_itself(tmp_path: Path) -> None:
    assert prediction(tmp_path).prediction.out == str(tmp_path)
    assert (prediction(tmp_path).out, prediction(tmp_path).in_place) == (str(tmp_path), True)
    assert (prediction(tmp_path, out="/o").out, prediction(tmp_path, out="/o").in_place) == ("/o", False)


def test_prediction_as_its_own_out_and_a_coding_of_its_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--out: .* is the prediction itself; leave --out out"):
        prediction(tmp_path, out=str(tmp_path))
    with pytest.raises(ConfigError, match=r"--prediction-coding: the masks in .* are of predict.py"):
        prediction(tmp_path, prediction_coding="nnunet")
