"""A cross-validation on a real embedded Ray: whole, resumed after a fold was removed, and predicted with."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from brats.config import PredictConfig, TrainConfig
from brats.pipeline.predict import predict
from brats.pipeline.several.side_by_side import train_run
from tests.support.synthetic import write_cases

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


def config_of(folder: Path) -> TrainConfig:
    return TrainConfig(
        data=str(folder / "cases"),
        out=str(folder / "run"),
        cross_validation=2,
        encoder="tu-test_resnet",
        decoder_channels=(8, 8, 8, 8, 8),
        epochs=1,
        batch_size=8,
        micro_batch_size=4,
        workers=1,
        tune=False,
        precision="fp32",
    )


def scores(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "metrics" / "cases.parquet").sort_values(["case_id", "region"], ignore_index=True)


def test_cases_are_scored_out_of_fold_also_by_a_fold_that_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = config_of(tmp_path), tmp_path / "run"
    case_ids = write_cases(tmp_path / "cases", 5, shape=(32, 30, 14))
    trained = train_run(config)
    before = scores(run)
    assert list(before.case_id) == [case_id for case_id in case_ids for _ in range(3)]
    assert set(before.split) == {"test"}
    assert len(trained.history) == 2
    kept = (run / "fold_0" / "checkpoints" / "epoch_00001" / "checkpoint.pt").stat().st_mtime_ns
    shutil.rmtree(run / "fold_1")
    capsys.readouterr()
    train_run(config)
    assert (run / "fold_0" / "checkpoints" / "epoch_00001" / "checkpoint.pt").stat().st_mtime_ns == kept
    assert capsys.readouterr().out.count("nothing to do: 1 epochs are done") == 1
    columns = ["case_id", "region", "dice", "hd95_mm", "n_predicted_voxels"]
    pd.testing.assert_frame_equal(scores(run)[columns], before[columns])
    out = tmp_path / "predicted"
    results = predict(
        PredictConfig(model=str(run), data=str(run / "prepared"), out=str(out), precision="fp32", workers=1)
    )
    assert results.n_cases == 5
    assert "WARNING: the model was trained or chosen on the patients of 5 of these cases" in capsys.readouterr().out
