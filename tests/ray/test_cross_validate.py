"""A cross-validation on a real embedded Ray: gone on with after a fold had failed, and predicted with."""

from pathlib import Path

import pandas as pd
import pytest

from brats.config import PredictConfig, TrainConfig
from brats.errors import BratsError
from brats.pipeline.predict import predict
from brats.pipeline.several import ensemble
from brats.pipeline.several.side_by_side import train_run
from brats.pipeline.train import TrainedRun, train
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


def test_a_fold_that_failed_is_made_up_for_and_every_case_is_scored_out_of_fold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = config_of(tmp_path), tmp_path / "run"
    case_ids = write_cases(tmp_path / "cases", 5, shape=(32, 30, 14))

    def train_but_fold_1(fold: TrainConfig) -> TrainedRun:
        if fold.out.endswith("fold_1"):
            raise BratsError("the store is unreachable")
        return train(fold)

    with monkeypatch.context() as patch:
        patch.setattr(ensemble, "train", train_but_fold_1)
        with pytest.raises(BratsError, match=r"1 of 2 runs failed: fold_1 \(the store is unreachable\)"):
            train_run(config)
    kept = (run / "fold_0" / "checkpoints" / "epoch_00001" / "checkpoint.pt").stat().st_mtime_ns
    capsys.readouterr()
    trained = train_run(config)
    assert (run / "fold_0" / "checkpoints" / "epoch_00001" / "checkpoint.pt").stat().st_mtime_ns == kept
    assert capsys.readouterr().out.count("nothing to do: 1 epochs are done") == 1
    assert len(trained.history) == 2
    scores = pd.read_parquet(run / "metrics" / "cases.parquet").sort_values("case_id")
    assert list(scores.case_id) == [case_id for case_id in case_ids for _ in range(3)]
    assert set(scores.split) == {"test"}
    out = tmp_path / "predicted"
    results = predict(
        PredictConfig(model=str(run), data=str(run / "prepared"), out=str(out), precision="fp32", workers=1)
    )
    assert results.n_cases == 5
    assert "WARNING: the model was trained or chosen on the patients of 5 of these cases" in capsys.readouterr().out
