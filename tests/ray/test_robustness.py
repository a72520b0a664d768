"""Robustness on a real embedded Ray: two degradations of four cases, scored, compared and resumed."""

from pathlib import Path

import pandas as pd
import pytest

from brats import storage
from brats.config import RobustnessConfig
from brats.data.masks import MASK
from brats.errors import ConfigError
from brats.pipeline.predict import predict
from brats.pipeline.robustness import predict_config, robustness
from tests.support.bundles import save_undecided_bundle
from tests.support.synthetic import write_case, write_cases

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


def masks(out: Path) -> dict[str, object]:
    return {path.name: storage.read_table(str(path), MASK) for path in sorted((out / "masks").iterdir())}


def test_degradations_are_scored_beside_the_intact_cases_and_only_missing_work_is_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_undecided_bundle(tmp_path / "model")
    write_cases(tmp_path / "data", 3)
    write_case(str(tmp_path / "data"), "unlabelled", labelled=False)
    config = RobustnessConfig(
        model=str(tmp_path / "model"),
        data=str(tmp_path / "data"),
        out=str(tmp_path / "out"),
        degradations=("noise",),
        workers=1,
    )
    first = robustness(config)
    assert "degrade  noise-strong, 3 of 3" in capsys.readouterr().out
    out = tmp_path / "out"
    table = pd.read_parquet(out / "robustness.parquet")
    assert list(table.degradation.unique()) == ["intact", "noise-mild", "noise-strong"]
    assert (table.n == 3).all()
    scored = pd.read_parquet(out / "noise-strong" / "metrics" / "cases.parquet").groupby("region").dice.mean()
    strong = table[table.degradation == "noise-strong"].set_index("region")
    assert strong.dice.to_dict() == pytest.approx(scored.to_dict())
    assert strong.dice_lost.to_dict() == pytest.approx((strong.dice_intact - strong.dice).to_dict())
    assert masks(out / "intact") != masks(out / "noise-mild") != masks(out / "noise-strong")

    (out / "noise-mild" / "parts" / "case_01.json").unlink()
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("masks/*.parquet") if "case_01" not in path.name}
    again = robustness(config)
    said = capsys.readouterr().out
    assert said.count("; 4 done before") == 2
    assert said.count("; 3 done before") == 1
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert again.table.equals(first.table)
    assert again.summary().splitlines()[-1] == f"robustness  {out / 'robustness.parquet'}"

    with pytest.raises(ConfigError, match=r"noise-mild: holds a different run \(degradation"):
        predict(predict_config(config, "noise-mild"))
