"""What the documents show works: the Python runs on the files of a prediction, options and paths exist."""

import dataclasses
import re
from pathlib import Path

import pytest

from brats import config
from brats.data.case import Case
from brats.data.items import Item, PreparedCase
from brats.pipeline.predict import write_case
from brats.score.results import write_results
from tests.support import ROOT
from tests.support.prepared import tiny_case

README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def demo_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """The predictions of a demo run with one case, in the current folder."""
    monkeypatch.chdir(tmp_path)
    case = tiny_case("BraTS20_Training_001")
    assert case.labels is not None
    source = PreparedCase(path="", voxel_hash="")
    item = Item(case_id=case.case_id, patient_id="p", split="test", source=source, sources=(), coding="brats2018")
    write_case("runs/demo/test", item, case, case.labels, nifti=False)
    write_results("runs/demo/test", {case.case_id}, [], config={})
    return case


def test_query_of_the_metrics_runs(demo_run: Case, capsys: pytest.CaptureFixture[str]) -> None:
    exec(PYTHON_BLOCKS[0], {})
    said = capsys.readouterr().out
    assert re.search(r"WT +1\.0 +0\.0 +1\.0 +1\.0", said)
    assert demo_run.case_id in said


def test_decoding_of_a_mask_runs(demo_run: Case, capsys: pytest.CaptureFixture[str]) -> None:
    exec(PYTHON_BLOCKS[1], {})
    assert capsys.readouterr().out.startswith(str(demo_run.grid.shape))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_option_in_a_document_exists(document: Path) -> None:
    known = {
        "--" + field.name.replace("_", "-")
        for name in (
            "PrepareConfig",
            "TrainConfig",
            "PredictConfig",
            "RobustnessConfig",
            "EvaluateConfig",
            "ReportConfig",
            "ExportConfig",
            "CompareConfig",
        )
        for field in dataclasses.fields(getattr(config, name))
    }
    known |= {"--no-predict", "--no-tune"}
    of_others = {
        "--help",
        "--runtime-env-json",
        "--working-dir",
        "--no-wait",
        "--generate",
        "--logdir",
        "--no-index",
        "--backend-store-uri",
    }
    of_benchmarks = {"--quick", "--only", "--against", "--with", "--check"}
    of_aws = {"--aws-service-name", "--group-name", "--strategy"}
    shown = set(re.findall(r"(?<!-)--[a-z][a-z0-9-]*", document.read_text())) - of_others - of_benchmarks - of_aws
    assert shown <= known, shown - known


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_path_of_the_code_in_a_document_exists(document: Path) -> None:
    for path in re.findall(
        r"(?<![\w/])(?:jobs|brats|benchmarks|examples|tests)/[a-z0-9_/]*(?:\.[a-z]+)?", document.read_text()
    ):
        assert (ROOT / path).exists(), path
