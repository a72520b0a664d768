"""Scoring NIfTI masks of any origin on a real embedded Ray."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brats.config import EvaluateConfig
from brats.errors import ConfigError, StorageError
from brats.pipeline.evaluate import Pair, evaluate
from brats.score.results import Results
from tests.support.synthetic import file_path, save, write_case

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


def run(root: Path, **options: object) -> Results:
    paths = {"predictions": str(root / "masks"), "references": str(root / "cases"), "out": str(root / "out")}
    return evaluate(EvaluateConfig(**paths, **options))  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three cases and their own references as predictions."""
    (tmp_path / "masks").mkdir()
    for number in range(3):
        folder = write_case(str(tmp_path / "cases"), f"case_{number}", seed=number)
        source = file_path(folder, f"case_{number}", "seg")
        shutil.copy(source, tmp_path / "masks" / f"case_{number}.nii.gz")
    return tmp_path


def test_reference_against_itself_is_perfect(root: Path) -> None:
    scores = run(root)
    table = pd.read_parquet(root / "out" / "metrics" / "cases.parquet")
    assert len(table) == 9
    assert (table.dice == 1).all()
    assert (table.hd95_mm == 0).all()
    assert scores.n_cases == 3


def test_half_a_tumour_has_the_dice_computed_by_hand(root: Path) -> None:
    path = root / "masks" / "case_0.nii.gz"
    image = nib.load(path)
    codes = np.asarray(image.dataobj).copy()
    whole = (codes > 0).sum()
    codes[: codes.shape[0] // 2] = 0
    half = (codes > 0).sum()
    save(codes, str(path))
    run(root)
    table = pd.read_parquet(root / "out" / "metrics" / "cases.parquet").set_index(["case_id", "region"])
    assert table.loc[("case_0", "WT"), "dice"] == pytest.approx(2 * half / (half + whole))


def test_reference_without_prediction_is_a_reject_not_silence(root: Path) -> None:
    (root / "masks" / "case_1.nii.gz").unlink()
    scores = run(root)
    assert [reject.case_id for reject in scores.rejects] == ["case_1"]
    assert "rejected case_1" in scores.summary()


def test_prediction_on_another_grid_is_rejected_with_both_shapes(root: Path) -> None:
    save(np.zeros((10, 10, 10), np.uint8), str(root / "masks" / "case_2.nii.gz"))
    (reject,) = run(root).rejects
    assert "shape (10, 10, 10)" in reject.reason
    assert "(40, 36, 16)" in reject.reason


def test_nothing_that_fits_together_is_an_error(root: Path) -> None:
    for path in (root / "masks").iterdir():
        path.rename(path.with_name("other_" + path.name))
    with pytest.raises(ConfigError, match=r"none of its 3 NIfTI files is named <case_id>.nii.gz"):
        run(root)


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--predictions: .*masks does not exist"):
        run(tmp_path)


def test_parts_of_an_earlier_version_are_refused_before_anything_is_scored(root: Path) -> None:
    (root / "out" / "parts").mkdir(parents=True)
    (root / "out" / "parts" / "case_0.parquet").write_bytes(b"PAR1")
    with pytest.raises(StorageError, match=r"case_0\.parquet: a result in Parquet, of an earlier version"):
        run(root)
    assert [path.name for path in (root / "out").rglob("*") if path.is_file()] == ["case_0.parquet"]


def test_pair_that_kills_its_process_is_a_transient_reject_while_the_others_are_scored(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score_or_die(pair: Pair, out: str) -> None:
        import os
        import signal

        from brats.pipeline.evaluate import score_pair

        if pair.case.case_id == "case_1":
            os.kill(os.getpid(), signal.SIGKILL)
        score_pair(pair, out)

    with monkeypatch.context() as patched:
        patched.setattr("brats.pipeline.evaluate.score_pair", score_or_die)
        scores = run(root)
    (reject,) = scores.rejects
    assert (reject.case_id, reject.transient) == ("case_1", True)
    assert reject.reason == (
        "scoring it killed 3 processes, most likely out of memory; use machines with more memory"
    )
    assert set(pd.read_parquet(root / "out" / "metrics" / "cases.parquet").case_id) == {"case_0", "case_2"}
    assert run(root).n_cases == 3
