"""The cells of docs/notebooks.md, in an IPython kernel in the shape of Kaggle's."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from brats.cli.parser import parse
from brats.config import PrepareConfig
from brats.model.checkpoint import saved_epochs
from tests.support import ROOT
from tests.support.notebook import Cell, kernel, mounts_are_allowed
from tests.support.synthetic import uncompress, write_case
from tests.support.training import OPTIONS

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PAGE = (ROOT / "docs" / "notebooks.md").read_text()
CELLS: list[str] = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
TINY = 'encoder="tu-test_resnet", decoder_channels=(8,) * 5, batch_size=8, micro_batch_size=4, precision="fp32"'
TINY += ", learning_rate=3e-3, warmup_steps=5, tune=False"
N_TRAINING = 7
STATE = """
import signal, threading
print(signal.getsignal(signal.SIGTERM), sorted(thread.name for thread in threading.enumerate()))
"""


def cell_with(part: str) -> str:
    """The only cell of the page in which this is."""
    (found,) = [code for code in CELLS if part in code]
    return found


class Notebook:
    """The page as it was run: its folders, and what came of its cells."""

    def __init__(self, root: Path) -> None:
        self.input, self.working = root / "input", root / "working"
        self.working.mkdir()
        self.cells: dict[str, Cell] = {}
        self.n_before = 0
        self.is_read_only = self.is_untouched = False

    def write_data(self) -> None:
        """Cases of BraTS 2020 as they lie at Kaggle."""
        for kind, n_cases in {"Training": N_TRAINING, "Validation": 1}.items():
            folder = f"brats20-dataset-training-validation/BraTS2020_{kind}Data/MICCAI_BraTS2020_{kind}Data"
            for number in range(1, n_cases + 1):
                options: dict[str, Any] = {"seed": number, "shape": (32, 30, 10), "labelled": kind == "Training"}
                case_id = f"BraTS20_{kind}_{number:03d}"
                uncompress(write_case(str(self.input / folder), case_id, **options))

    def here(self, code: str, epochs: int = 0) -> str:
        """A cell of the page with the folders of this test, and with a network that is soon trained."""
        train = "/kaggle/input/brats-ray/jobs/train.py"
        code = code.replace(f"{train} ", f"{train} --epochs {epochs} {' '.join(OPTIONS)} ")
        code = code.replace(train, str(ROOT / "tests" / "support" / "train_on_t4s.py"))
        code = code.replace("workers=2", f"workers=2, epochs={epochs}, {TINY}")
        return code.replace("/kaggle/input", str(self.input)).replace("/kaggle/working", str(self.working))

    def last_epoch(self) -> int:
        """That of the latest checkpoint."""
        return max(saved_epochs(str(self.working / "run")))


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder, with its size and when it was last changed."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    root = tmp_path_factory.mktemp("notebook")
    notebook = Notebook(root)
    notebook.write_data()
    notebook.is_read_only = mounts_are_allowed(notebook.input)
    before, cells = files_below(notebook.input), notebook.cells
    earlier = notebook.input / "earlier-session"
    call, command = cell_with("run = train("), cell_with("jobs/train.py")
    with kernel(root, notebook.input, notebook.working) as running:
        running.run("from tests.support.t4s import pretend; pretend()")
        cells["before"] = running.run(STATE)
        cells["interrupted"] = running.run(notebook.here(call, epochs=10_000), interrupt_at="epoch 1/")
        cells["after"] = running.run(STATE)
        cells["mistyped"] = running.run('train(TrainConfig(data="missing", out="run"))')
        cells["in full"] = running.run('train(TrainConfig(data="missing", out="run", debug=True))')
        cells["wrong value"] = running.run('TrainConfig(out="run", epochs=0)')
        notebook.n_before = notebook.last_epoch()
        shutil.copytree(notebook.working / "run", earlier / "run")
        shutil.rmtree(notebook.working / "run")
        running.run(notebook.here(cell_with("cp -a")))
        timed = command.replace("!python", "!timeout -s INT 11h python")
        cells["resumed"] = running.run(notebook.here(timed, epochs=notebook.n_before + 1))
        shutil.rmtree(earlier)
        cells["called"] = running.run(notebook.here(call, epochs=notebook.n_before + 1))
        cells["predicted"] = running.run(notebook.here(cell_with("predict(\n")))
        cells["at the end"] = running.run(STATE)
        cells["shown"] = running.run(notebook.here(cell_with("IFrame")))
    notebook.is_untouched = files_below(notebook.input) == before
    return notebook


def test_cells_that_are_not_run_install_or_prepare() -> None:
    """Installing would change this environment; the same preparing is run in test_layouts."""
    assert len(CELLS) == 8
    assert sum("pip install" in code for code in CELLS) == 2
    _, _, *options = cell_with("jobs/prepare.py").replace("\\\n", " ").split()
    assert parse(PrepareConfig, options).hdf5_channels == ("t1", "t1ce", "t2", "flair")


def test_interrupted_call_is_one_line_and_leaves_the_kernel_as_it_was(notebook: Notebook) -> None:
    cells = notebook.cells
    assert "2 T4 workers" in cells["interrupted"].said
    assert cells["interrupted"].error == "stopped; the same call keeps what is finished and does the rest"
    assert cells["after"].said == cells["before"].said


def test_small_shared_memory_is_said_in_one_line(notebook: Notebook) -> None:
    if not notebook.is_read_only:
        pytest.skip("a file system of a given size needs root")
    assert re.match(
        r"ray      /dev/shm has 0\.07 GB: shared objects, up to [\d.]+ GB, lie in /\S+\nprepare  7 cases below ",
        notebook.cells["interrupted"].said,
    )


def test_errors_are_one_line_as_on_the_command_line(notebook: Notebook) -> None:
    missing = f"--data: {notebook.working}/missing does not exist"
    assert notebook.cells["mistyped"].error == f"ConfigError: {missing}"
    assert notebook.cells["wrong value"].error == "ConfigError: --epochs must be at least 1, not 0"


def test_debug_shows_where_an_error_was_raised(notebook: Notebook) -> None:
    lines = notebook.cells["in full"].error.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == f"brats.errors.ConfigError: --data: {notebook.working}/missing does not exist"


def test_command_goes_on_with_the_copied_run_on_both_gpus(notebook: Notebook) -> None:
    said = notebook.cells["resumed"].said
    assert notebook.n_before >= 1
    assert f"2 T4 workers; {notebook.n_before + 1} epochs of" in said
    assert f"resuming after epoch {notebook.n_before}\r\n" in said
    assert f"prepare  {N_TRAINING} cases below {notebook.input}" in said
    assert f"; {N_TRAINING} done before" in said
    assert f"report   {notebook.working}/run/report/index.html" in said


def test_call_finds_the_run_of_the_command_done(notebook: Notebook) -> None:
    called = notebook.cells["called"]
    assert f"train    nothing to do: {notebook.n_before + 1} epochs are done\n" in called.said
    assert re.match(r"region +ET +TC +WT", called.result)


def test_data_is_left_as_it_was(notebook: Notebook) -> None:
    assert notebook.is_untouched


def test_second_call_in_a_kernel_predicts_on_both_gpus(notebook: Notebook) -> None:
    predicted = notebook.cells["predicted"]
    assert "predict  2 T4 workers\n" in predicted.said
    assert (notebook.working / "predicted" / "nifti" / "BraTS20_Validation_001.nii.gz").is_file()


def test_report_and_pictures_are_shown(notebook: Notebook) -> None:
    picture, link, frame = notebook.cells["shown"].shown
    assert "image/png" in picture
    assert "href='run/report/index.html'" in link["text/html"]
    assert 'src="run/report/index.html"' in frame["text/html"]
    assert (notebook.working / "run" / "report" / "index.html").is_file()


def test_no_call_leaves_threads_or_a_handler_of_signals(notebook: Notebook) -> None:
    assert notebook.cells["at the end"].said == notebook.cells["before"].said
