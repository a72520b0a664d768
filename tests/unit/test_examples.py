"""The examples run on a finished prediction, and print what its tables hold."""

import shutil
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples.read_results import LIBRARIES, TITLES, main
from tests.support.predictions import write_prediction
from tests.support.synthetic import write_cases

REGIONS = ("WT", "TC", "ET")
DICE, WORST, LESIONS, SLICES = TITLES


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose seven test cases are predicted, two of them without ET in the reference."""
    root = tmp_path_factory.mktemp("it's a run")  # a quote, which SQL must not see
    write_cases(root / "data", 7, no_et_every=4)
    write_prediction(root / "data", root / "run" / "test")
    return root / "run"


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(run / "test" / "metrics" / f"{name}.parquet").to_pylist()
    return found


def sections(text: str) -> dict[str, list[list[str]]]:
    """The words of each line below its title."""
    found: list[tuple[str, list[list[str]]]] = []
    for line in text.splitlines():
        if line.startswith("  "):
            found[-1][1].append(line.split())
        else:
            found.append((line, []))
    return dict(found)


@pytest.fixture(params=list(LIBRARIES))
def printed(
    request: pytest.FixtureRequest, run: Path, capsys: pytest.CaptureFixture[str]
) -> dict[str, list[list[str]]]:
    """What the example prints, by each library, with the file of the first table cut off."""
    main(run, request.param)
    return sections(capsys.readouterr().out.replace(f"{run}/test/metrics/", ""))


def test_mean_dice_has_the_interval_of_the_summary(run: Path, printed: dict[str, list[list[str]]]) -> None:
    chosen = {
        row["region"]: row
        for row in rows(run, "summary")
        if (row["metric"], row["convention"], row["subset"]) == ("dice", "brats", "all")
    }
    assert printed[DICE] == [
        ["summary.parquet", name, "7", *(f"{chosen[name][key]:.3f}" for key in ("mean", "ci95_low", "ci95_high"))]
        for name in REGIONS
    ]


def test_the_worst_cases_come_first(run: Path, printed: dict[str, list[list[str]]]) -> None:
    dice = defaultdict(list)
    for row in rows(run, "cases"):
        dice[row["case_id"]].append(row["dice"])
    ranked = sorted((fmean(values), case_id) for case_id, values in dice.items())
    assert len(ranked) == 7
    assert printed[WORST] == [[case_id, f"{mean:.3f}"] for mean, case_id in ranked[:5]]


def test_scores_by_lesion_stand_beside_those_of_the_patient(run: Path, printed: dict[str, list[list[str]]]) -> None:
    def mean(region: str, column: str) -> str:
        values = [row[column] for row in rows(run, "cases") if row["region"] == region]
        return f"{fmean(value for value in values if value is not None):.3f}"

    assert printed[LESIONS] == [
        [name, *(mean(name, column) for column in ("dice", "lesion_dice_2023", "lesion_dice_2026"))]
        for name in REGIONS
    ]
    whole, of_2023, _ = map(float, printed[LESIONS][0][1:])
    assert of_2023 < whole  # the false voxel of each prediction is a lesion there


def test_each_of_the_worst_has_the_slice_that_is_farthest_off(
    run: Path, printed: dict[str, list[list[str]]]
) -> None:
    worst = sorted((row["dice"], row["case_id"]) for row in rows(run, "cases") if row["region"] == "WT")[:5]
    expected = []
    for dice, case_id in worst:
        counts = [
            (-abs(row["n_predicted_voxels"] - row["n_reference_voxels"]), row["slice_index"], row)
            for row in rows(run, "slices")
            if row["case_id"] == case_id and row["region"] == "WT"
        ]
        _, index, row = min(counts, key=lambda count: count[:2])
        voxels = (str(row["n_reference_voxels"]), str(row["n_predicted_voxels"]))
        expected.append([case_id, f"{dice:.3f}", str(index), *voxels])
    assert printed[SLICES] == expected


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_cross_validation_has_a_summary_of_each_fold_and_its_own_cases(
    run: Path, library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run / "test" / "metrics", tmp_path / "fold_0" / "test" / "metrics")
    shutil.copytree(run / "test" / "metrics", tmp_path / "metrics")
    main(tmp_path, library)
    found = sections(capsys.readouterr().out)
    assert [row[0].removeprefix(f"{tmp_path}/") for row in found[DICE]] == [
        *["fold_0/test/metrics/summary.parquet"] * 3,
        *["metrics/summary.parquet"] * 3,
    ]
    assert len(found[WORST]) == 5


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_region_that_is_not_predicted_has_dashes(
    run: Path, library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run / "test" / "metrics", tmp_path / "metrics")
    path = tmp_path / "metrics" / "cases.parquet"
    table = pq.read_table(path)
    nulls = ("dice", "lesion_dice_2023", "lesion_dice_2026")
    cases = [{**row, **dict.fromkeys(nulls)} if row["region"] == "ET" else row for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(cases, schema=table.schema), path)
    main(tmp_path, library)
    assert sections(capsys.readouterr().out)[LESIONS][2] == ["ET", "-", "-", "-"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_folder_without_tables_is_one_line(library: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"is missing; give the --out of train\.py, predict\.py or evaluate\.py$"):
        main(tmp_path, library)
