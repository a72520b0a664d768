"""The jobs as functions: the indented code of docs/python.md is run, on tiny cases; the fenced is not."""

import re
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import brats
from brats.errors import ConfigError
from brats.model.hardware import in_words, read_hardware
from brats.pipeline.functions import briefly
from tests.support import ROOT
from tests.support.logged import clear_settings, mlflow_points, mlflow_run, wandb_file, wandb_points
from tests.support.synthetic import write_cases

TINY = (
    'epochs=1, workers=1, encoder="tu-test_resnet", decoder_channels=(8,) * 5, batch_size=8, tune=False, '
    'loggers=("mlflow", "wandb")'
)


def test_a_name_that_is_no_job_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'brats' has no attribute 'compare'"):
        _ = brats.compare
    assert set(brats.__all__) >= {"prepare", "train", "predict", "evaluate"}


@pytest.mark.parametrize("debug", [False, True])
def test_a_notebook_shows_more_than_a_line_of_an_error_with_debug_alone(debug: bool) -> None:
    with pytest.raises(ConfigError) as caught, briefly(debug):
        raise ConfigError("wrong")
    assert (len(caught.value._render_traceback_()) > 1) == debug


def test_a_notebook_shows_an_interruption_in_one_line_but_with_debug() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, briefly(debug=False):
        raise KeyboardInterrupt
    assert caught.value._render_traceback_() == [  # type: ignore[attr-defined]
        "stopped; the same call keeps what is finished and does the rest"
    ]
    with pytest.raises(KeyboardInterrupt) as caught, briefly(debug=True):
        raise KeyboardInterrupt
    assert not hasattr(caught.value, "_render_traceback_")


@pytest.mark.ray
@pytest.mark.usefixtures("embedded_ray")
def test_the_examples_of_the_page_run_and_give_pandas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clear_settings(monkeypatch, tmp_path / "cache")
    write_cases(tmp_path / "cases", 8, shape=(32, 30, 10))
    page = (ROOT / "docs" / "python.md").read_text()
    code = "\n".join(
        textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n)+", page, flags=re.MULTILINE)
    )
    assert "epochs=30" in code
    names: dict[str, Any] = {}
    exec(code.replace("epochs=30", TINY), names)
    assert "--epochs must be at least 1, not 0\n" in capsys.readouterr().out
    assert list(names["epochs"].epoch) == [1]
    assert names["dice"].shape == (8, 3)
    assert names["worst"] in set(names["cases"].case_id)
    pd.testing.assert_frame_equal(names["tables"], names["cases"])
    columns = ["case_id", "region", "dice", "hd95_mm"]
    pd.testing.assert_frame_equal(names["again"].cases[columns], names["cases"][columns])
    assert set(names["summary"].columns) >= {"region", "metric", "mean", "ci95_low"}
    check_logged(tmp_path / "run")
    check_hardware(tmp_path / "run")
    assert (tmp_path / "predicted" / "nifti" / "labels_brats2018.txt").exists()


def check_logged(run: Path) -> None:
    """The only epoch is logged by all loggers, with equal figures, and the run has come to its end."""
    assert len(list((run / "tensorboard").iterdir())) == 1
    store = f"file://{run}/mlflow"
    assert {number for number, _, _ in mlflow_points(store)} == {1}
    assert {"loss/train", "dice/val_wt"} <= {name for _, name, _ in mlflow_points(store)}
    assert wandb_points(wandb_file(run)) == mlflow_points(store)
    assert mlflow_run(store).info.status == "FINISHED"


def check_hardware(run: Path) -> None:
    """The run has recorded its hardware; the card of its model and its page say it."""
    words = in_words(read_hardware(str(run)))
    assert words.startswith("1 worker on 1 machine, ")
    card = (run / "model" / "README.md").read_text()
    assert card.startswith("# Model card\n")
    assert f"\nHardware: {words}.\n" in card
    assert f"<dd>{words}</dd>" in (run / "report" / "index.html").read_text()
