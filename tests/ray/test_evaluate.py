"""Scoring NIfTI masks of any origin on a real embedded Ray."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brats.config import EvaluateConfig, RulesName
from brats.data.codings import BRATS_2018, BRATS_2023, Coding
from brats.data.pairs import Pair
from brats.data.prediction_coding import NNUNET
from brats.errors import ConfigError, StorageError
from brats.labels import ED
from brats.pipeline.scoring.check import check_evaluation
from brats.pipeline.scoring.evaluate import evaluate
from brats.score.results import Results
from tests.support.synthetic import file_path, save, write_case

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


def run(root: Path, **options: object) -> Results:
    paths = {"predictions": str(root / "masks"), "references": str(root / "cases"), "out": str(root / "out")}
    return evaluate(check_evaluation(EvaluateConfig(**{**paths, **options})))  # type: ignore[arg-type]


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
    scores = run(root, challenge_rules="met")
    table = pd.read_parquet(root / "out" / "metrics" / "cases.parquet")
    assert len(table) == 9
    assert (table.dice == 1).all()
    assert (table.hd95_mm == 0).all()
    assert (table.lesion_dice_2023 == 1).all()
    assert scores.n_cases == 3
    assert "lesions of 2023 by the rules of met (3 cases)" in scores.summary()


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
    def score_or_die(pair: Pair, out: str, coding: Coding | None, challenge_rules: RulesName) -> None:
        import os
        import signal

        from brats.pipeline.scoring.evaluate import score_pair

        if pair.case.case_id == "case_1":
            os.kill(os.getpid(), signal.SIGKILL)
        score_pair(pair, out, coding, challenge_rules)

    with monkeypatch.context() as patched:
        patched.setattr("brats.pipeline.scoring.evaluate.score_pair", score_or_die)
        scores = run(root)
    (reject,) = scores.rejects
    assert (reject.case_id, reject.transient) == ("case_1", True)
    assert reject.reason == (
        "scoring it killed 3 processes, most likely out of memory; use machines with more memory"
    )
    assert set(pd.read_parquet(root / "out" / "metrics" / "cases.parquet").case_id) == {"case_0", "case_2"}
    assert run(root).n_cases == 3


def scores_of(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "metrics" / "cases.parquet")


@pytest.mark.parametrize(("edition", "coding"), [(2018, BRATS_2018), (2023, BRATS_2023)])
def test_masks_in_the_order_of_nnunet_get_a_warning_and_with_the_option_their_right_scores(
    tmp_path: Path, edition: int, coding: Coding
) -> None:
    (tmp_path / "masks").mkdir()
    for number in range(3):
        folder = write_case(
            str(tmp_path / "cases"), f"case_{number}", seed=number, edition=edition, with_et=number > 0
        )
        source = nib.load(file_path(folder, f"case_{number}", "seg", edition))
        labels = coding.decode(np.asarray(source.dataobj))
        labels[:20][labels[:20] == ED] = 0  # a mask that is good, not perfect
        for name, written in (("right", coding), ("masks", NNUNET)):
            (tmp_path / name).mkdir(exist_ok=True)
            save(written.encode(labels), str(tmp_path / name / f"case_{number}.nii.gz"), source.affine)
    silent = run(tmp_path)
    assert "WARNING: read as nnunet (1 ED, 2 NCR, 3 ET) these masks would score a mean Dice of" in silent.summary()
    assert "add --prediction-coding nnunet" in silent.summary()
    if edition == 2018:  # 3 is no code there
        assert [reject.case_id for reject in silent.rejects] == ["case_1", "case_2"]
        assert all("add --prediction-coding nnunet" in reject.reason for reject in silent.rejects)
    told = run(tmp_path, prediction_coding="nnunet", out=str(tmp_path / "told"))
    right = run(tmp_path, predictions=str(tmp_path / "right"), out=str(tmp_path / "true"))
    assert not [*told.doubts, *told.rejects, *right.doubts, *right.rejects]
    pd.testing.assert_frame_equal(scores_of(tmp_path / "told"), scores_of(tmp_path / "true"))
    with pytest.raises(ConfigError, match="prediction_coding 'nnunet' there, 'case' here"):
        run(tmp_path, out=str(tmp_path / "told"))


def test_two_predictions_for_one_case_are_refused_before_anything_is_written(root: Path) -> None:
    (root / "masks" / "other").mkdir()
    shutil.copy(root / "masks" / "case_1.nii.gz", root / "masks" / "other" / "case_1.nii.gz")
    with pytest.raises(ConfigError, match=r"case_1 has 2 predictions, .*/case_1.nii.gz and .*/other/case_1.nii.gz"):
        run(root)
    assert not (root / "out").exists()


def test_upper_case_suffix_is_taken_and_predictions_of_no_case_are_named(root: Path) -> None:
    (root / "masks" / "case_0.nii.gz").rename(root / "masks" / "case_0.NII.GZ")
    shutil.copy(root / "masks" / "case_1.nii.gz", root / "masks" / "case_9.nii.gz")
    scores = run(root)
    assert scores.n_cases == 3
    assert "WARNING: predictions named after no reference: 1 of 4, case_9.nii.gz" in scores.summary()
