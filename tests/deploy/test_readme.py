"""What the README shows works: its Python runs on the files of a prediction, and its options exist."""

import dataclasses
import re
from pathlib import Path

import pytest

from brats import config
from brats.data.preprocess import Case
from brats.pipeline.predict import Item, write_case
from brats.score.results import write_results
from tests.support import ROOT
from tests.support.prepared import tiny_case

README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def demo_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """The predictions of a demo run with one case, in the current folder."""
    monkeypatch.chdir(tmp_path)
    case = tiny_case("BraTS20_Training_001")
    assert case.labels is not None
    item = Item(
        case_id=case.case_id, patient_id="p", split="test", prepared="", files="", source_bytes=1, voxel_hash=""
    )
    write_case("runs/demo/test", item, case, case.labels, nifti=False)
    write_results("runs/demo/test", {case.case_id}, [], config={}, strict=False)
    return case


def test_query_of_the_metrics_runs(demo_run: Case, capsys: pytest.CaptureFixture[str]) -> None:
    exec(PYTHON_BLOCKS[0], {})
    said = capsys.readouterr().out
    assert re.search(r"WT +1\.0 +0\.0 +1\.0 +1\.0", said)
    assert demo_run.case_id in said


def test_decoding_of_a_mask_runs(demo_run: Case, capsys: pytest.CaptureFixture[str]) -> None:
    exec(PYTHON_BLOCKS[1], {})
    assert capsys.readouterr().out.startswith(str(demo_run.grid.shape))


def test_every_option_in_the_readme_exists() -> None:
    known = {
        "--" + field.name.replace("_", "-")
        for name in ("PrepareConfig", "TrainConfig", "PredictConfig", "EvaluateConfig", "ReportConfig")
        for field in dataclasses.fields(getattr(config, name))
    }
    of_others = {"--help", "--working-dir", "--no-wait", "--generate", "--aws-service-name"}
    shown = set(re.findall(r"(?<!-)--[a-z][a-z-]*", README)) - of_others
    assert shown <= known, shown - known


def test_every_job_and_folder_in_the_readme_exists() -> None:
    for path in re.findall(r"(?<![\w/])(?:jobs|brats)/[a-z0-9_/]*(?:\.py)?", README):
        assert (ROOT / path).exists(), path
