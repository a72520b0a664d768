"""Two predictions compared from their tables, found in a run, a prediction or an evaluation; what is refused."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from brats import storage
from brats.errors import ConfigError
from brats.pipeline.scoring.against import against, against_path, scored_folder
from brats.score.against import AGAINST, Comparison
from brats.score.tables import CASE_METRICS, NOTEBOOK, metrics_path
from tests.support import ROOT


def write_scores(folder: Path, dice: dict[str, float], *, notebook: bool = True) -> Path:
    rows = [
        {"case_id": name, "patient_id": name, "region": "WT", "dice": value, "n_reference_voxels": 9}
        for name, value in dice.items()
    ]
    storage.write_table(metrics_path(str(folder), "cases"), CASE_METRICS, CASE_METRICS.table(rows))
    if notebook:
        storage.write_table(metrics_path(str(folder), "notebook"), NOTEBOOK, NOTEBOOK.table([]))
    return folder


def run(ours: Path, theirs: Path, out: Path | None = None) -> Comparison:
    return against(str(ours), str(theirs), str(out) if out else None)


def test_test_split_of_a_run_is_compared_with_an_evaluation(tmp_path: Path) -> None:
    write_scores(tmp_path / "run" / "test", {"a": 0.75, "b": 0.5})
    write_scores(tmp_path / "scores", {"a": 0.5, "b": 0.5}, notebook=False)
    found = run(tmp_path / "run", tmp_path / "scores")
    path = against_path(str(tmp_path / "run" / "test"))
    assert found.summary().splitlines()[-1] == f"table    {path}"
    row, *_ = pd.read_parquet(path).to_dict("records")
    assert (row["region"], row["metric"], row["difference"], row["wins"], row["ties"]) == (
        "WT",
        "dice",
        0.125,
        1,
        1,
    )
    metadata = storage.read_metadata(storage.read_table(path, AGAINST).schema, path, AGAINST)
    assert metadata["predictions"] == f"{tmp_path}/run/test"
    assert metadata["against"] == f"{tmp_path}/scores"


def test_job_compares_tables_without_starting_ray(tmp_path: Path) -> None:
    ours, theirs = write_scores(tmp_path / "a", {"a": 0.75}), write_scores(tmp_path / "b", {"a": 0.5})
    job = (
        "import runpy, sys\n"
        f"sys.argv[1:] = ['--predictions', '{ours}', '--against', '{theirs}']\n"
        "try:\n"
        f"    runpy.run_path('{ROOT}/jobs/evaluate.py', run_name='__main__')\n"
        "finally:\n"
        "    print('ray' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", job], capture_output=True, text=True, check=False, cwd=ROOT)
    *_, order, table, loaded = done.stdout.splitlines()
    assert (done.returncode, done.stderr, loaded) == (0, "", "False")
    assert order == "order    the same by every convention: --predictions is better"
    assert table == f"table    {against_path(str(ours))}"


def test_table_goes_where_out_says(tmp_path: Path) -> None:
    ours, theirs = write_scores(tmp_path / "a", {"a": 0.75}), write_scores(tmp_path / "b", {"a": 0.5})
    run(ours, theirs, out=tmp_path / "out")
    assert (tmp_path / "out" / "metrics" / "against.parquet").exists()
    assert not (tmp_path / "a" / "metrics" / "against.parquet").exists()


def test_masks_without_tables_of_their_own_are_compared_by_what_was_scored_of_them(tmp_path: Path) -> None:
    (tmp_path / "nifti").mkdir()
    write_scores(tmp_path / "out", {"a": 0.75})
    found = run(tmp_path / "nifti", write_scores(tmp_path / "b", {"a": 0.5}), out=tmp_path / "out")
    assert found.table["difference"].to_pylist() == [0.25, None, None]
    assert scored_folder(str(tmp_path / "nifti")) is None


def test_folder_without_scores_is_refused_by_its_option(tmp_path: Path) -> None:
    scored = write_scores(tmp_path / "a", {"a": 0.75})
    with pytest.raises(
        ConfigError, match=r"--against: .*/nothing has no metrics/cases\.parquet, nor has its test/"
    ):
        run(scored, tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"--predictions: .*/nothing has no metrics/cases\.parquet"):
        run(tmp_path / "nothing", scored)
    with pytest.raises(ConfigError, match=r"--against: no case of .*/empty has a reference"):
        run(scored, write_scores(tmp_path / "empty", {}))


def test_no_common_case_and_the_same_folder_twice_are_refused(tmp_path: Path) -> None:
    ours, theirs = write_scores(tmp_path / "run" / "test", {"a": 0.5}), write_scores(tmp_path / "b", {"c": 0.5})
    with pytest.raises(
        ConfigError, match=r"--against: no case is scored in both .*test \(such as a\) and .* as c\)"
    ):
        run(ours, theirs)
    with pytest.raises(ConfigError, match=r"--against: .*/run/test is what --predictions names; name another"):
        run(ours, tmp_path / "run")
