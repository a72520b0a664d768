"""The jobs as functions: what docs/python.md shows is run, on tiny cases."""

import re
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import brats
from brats.errors import ConfigError
from brats.pipeline.functions import briefly
from tests.support import ROOT
from tests.support.synthetic import write_cases

TINY = 'epochs=1, workers=1, encoder="tu-test_resnet", decoder_channels=(8,) * 5, batch_size=8, tune=False'


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
    assert (tmp_path / "run" / "tensorboard").is_dir()
    assert (tmp_path / "run" / "model" / "README.md").read_text().startswith("# Model card\n")
    assert (tmp_path / "predicted" / "nifti" / "labels_brats2018.txt").exists()
