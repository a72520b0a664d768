"""The screening of the recipe: folds, the paired interval, verdicts, and trials that are kept and resumed."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.support import ROOT

sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks import plain, recipe_trials
from benchmarks.generated import generate_dataset
from benchmarks.harness import BenchmarkError
from benchmarks.paired import difference, interval
from benchmarks.recipe import finalists, main, parsed, report, site_of, trials_of, verdict
from benchmarks.recipe_entries import DEFAULT, INGREDIENTS, KNOWN, OPPONENTS, entry_of
from benchmarks.recipe_folds import folds_of, split_of_fold
from benchmarks.recipe_trials import Entry, Site, Trained, Trial, run_trials
from brats import storage
from brats.config import TrainConfig
from brats.data.case import Case
from brats.data.dataset import PREPARED_CASES, cases_path
from brats.data.run_split import SplitRow
from brats.errors import BratsError
from brats.labels import Labels
from brats.model.training import fit

SHAPE = (36, 34, 8)


def rows_of(entry: str, values: Sequence[Sequence[float]], first_seed: int = 0) -> pd.DataFrame:
    """A table of trials whose Dice are values (P, S), the same in each region."""
    return pd.DataFrame(
        [
            {
                "entry": entry,
                "fold": 0,
                "seed": seed,
                "case_id": f"case_{patient}",
                "patient_id": f"patient_{patient}",
                "region": region,
                "dice": dice,
                "n_steps": 10,
                "slices_per_s": 100.0,
            }
            for patient, of_patient in enumerate(values)
            for seed, dice in enumerate(of_patient, first_seed)
            for region in ("WT", "TC", "ET")
        ]
    )


# The interval


def test_difference_is_the_mean_over_pairs_and_its_interval_holds_it() -> None:
    found = difference(rows_of("a", [[0.6, 0.7], [0.8, 0.9]]), rows_of("b", [[0.5, 0.5], [0.5, 0.5]]))
    assert found is not None
    assert found.mean == pytest.approx(0.25)  # 0.1, 0.2, 0.3, 0.4
    assert (found.n_patients, found.n_seeds) == (2, 2)
    # Both patients and both seeds the worse, and the better, are each drawn in one of 16 resamples.
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.4)


def test_difference_that_is_the_same_everywhere_has_no_width() -> None:
    low, high = interval(np.full((5, 3), 0.02))
    assert low == pytest.approx(0.02)
    assert high == pytest.approx(0.02)


def test_pair_that_is_missing_on_one_side_is_left_out() -> None:
    found = difference(rows_of("a", [[0.6], [0.8], [0.1]]), rows_of("b", [[0.5], [0.5]]))
    assert found is not None
    assert found.n_patients == 2
    assert found.mean == pytest.approx(0.2)


def test_sides_without_a_common_pair_have_no_difference() -> None:
    assert difference(rows_of("a", [[0.6]]), rows_of("b", [[0.5]], first_seed=1)) is None


def test_one_patient_has_no_interval_and_no_verdict() -> None:
    found = difference(rows_of("a", [[0.9, 0.9]]), rows_of("b", [[0.1, 0.1]]))
    assert found is not None
    assert (found.low, found.high, found.verdict) == (None, None, "not told apart")


def test_cases_of_one_patient_count_as_one() -> None:
    two = rows_of("a", [[0.6], [0.8], [1.0]]).replace({"patient_2": "patient_1"})
    found = difference(two, rows_of("b", [[0.5], [0.5], [0.5]]).replace({"patient_2": "patient_1"}))
    assert found is not None
    assert found.n_patients == 2
    assert found.mean == pytest.approx((0.1 + 0.4) / 2)


def test_few_patients_that_disagree_are_not_told_apart() -> None:
    found = difference(rows_of("a", [[0.9], [0.1], [0.6]]), rows_of("b", [[0.5], [0.5], [0.5]]))
    assert found is not None
    assert found.verdict == "not told apart"


# What follows


@pytest.mark.parametrize(
    ("name", "dice", "said"),
    [
        ("batch-64", 0.7, "on by default"),
        ("batch-64", 0.5, "off by default"),
        ("batch-64", 0.6, "not proved"),
        ("no-ema", 0.5, "on by default"),
        ("no-ema", 0.7, "off by default"),
    ],
)
def test_ingredient_is_on_by_default_only_where_the_interval_excludes_0(name: str, dice: float, said: str) -> None:
    found = difference(rows_of(name, [[dice] * 2] * 3), rows_of("default", [[0.6] * 2] * 3))
    assert found is not None
    assert verdict(name, found) == said


def test_one_seed_decides_nothing() -> None:
    found = difference(rows_of("batch-64", [[0.7]] * 3), rows_of("default", [[0.6]] * 3))
    assert found is not None
    assert verdict("batch-64", found) == "better, one seed"


def test_finalists_are_the_two_highest_of_the_screening() -> None:
    dice = {"default": 0.5, "batch-16": 0.6, "batch-64": 0.4, "no-ema": 0.7}
    trials = pd.concat([rows_of(name, [[value]] * 2) for name, value in dice.items()])
    finals = rows_of("batch-64", [[0.9]] * 2, first_seed=1)
    assert finalists(pd.concat([trials, finals])) == ["no-ema", "batch-16"]


def test_finals_without_a_screening_are_refused() -> None:
    with pytest.raises(BenchmarkError, match="run `screen` first"):
        finalists(rows_of("default", [[0.5]]))


def test_report_states_whether_the_aims_against_the_opponents_are_reached() -> None:
    trials = [rows_of("default", [[0.7], [0.6]]), rows_of("monai-script", [[0.6], [0.51]])]
    same = rows_of("monai-same", [[0.6], [0.6]]).assign(slices_per_s=50.0)
    lines = report(pd.concat([*trials, same])).splitlines()
    assert "+0.095 over monai-script at equal time; aim +0.10: NOT reached" in lines
    assert "+0.050 over monai-same at equal time; aim +0: reached" in lines
    assert "2.00 times its slices per second; aim 1: reached" in lines


def test_finals_use_other_seeds_than_the_screening_that_chose_them() -> None:
    seeds = {step: {trial.seed for trial in trials_of(step, [DEFAULT], 4)} for step in ("screen", "finals")}
    assert seeds["screen"].isdisjoint(seeds["finals"])
    assert len(trials_of("screen", [DEFAULT], 4)) == 2
    assert len(trials_of("finals", [DEFAULT], 4)) == 12


def test_screening_that_chose_a_finalist_does_not_judge_it() -> None:
    screened = [rows_of(name, [[dice]] * 3) for name, dice in (("default", 0.5), ("batch-64", 0.9), ("flips", 0.4))]
    alike = [rows_of(name, [[0.6, 0.6]] * 3, first_seed=1) for name in ("default", "batch-64")]
    lines = report(pd.concat([*screened, *alike])).splitlines()
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[2:5]}
    assert cells["batch-64"][3:6] == ["0.600", "+0.000 [+0.000 to +0.000]", "not proved"]
    assert cells["batch-64"][-1] == "2"
    assert cells["default"][3] == "0.600"
    assert cells["flips"][3:6] == ["0.400", "-0.100 [-0.100 to -0.100]", "worse, one seed"]


# Entries


@pytest.mark.parametrize("entry", INGREDIENTS, ids=lambda entry: entry.name)
def test_every_ingredient_changes_the_default_recipe(entry: Entry) -> None:
    default = TrainConfig(out="run")
    assert dataclasses.replace(default, **entry.changes) != default


def test_names_are_given_once() -> None:
    assert len(KNOWN) == 1 + len(INGREDIENTS) + len(OPPONENTS)


def test_ingredients_joined_by_plus_have_the_changes_of_all() -> None:
    assert entry_of("batch-64+flips").changes == {"batch_size": 64, "augmentation": "flips"}


@pytest.mark.parametrize("name", ["batch-65", "flips+none", "default+flips"])
def test_unknown_name_is_refused_with_the_known(name: str) -> None:
    with pytest.raises(BenchmarkError, match=r"is not an ingredient; known are no-augmentation, flips, .*"):
        entry_of(name)


# Folds


def row(number: int) -> SplitRow:
    names = {"coding": "brats2018", "height": 32, "width": 32, "voxel_hash": f"v2:{number}", "source_hash": "0"}
    return {
        **names,
        "case_id": f"case_{number:02d}",
        "patient_id": f"patient_{number // 2:02d}",  # two cases each
        "split": "test",
        "fold": None,
        "tumour_per_slice": [0, 5],
        "volume_ml_wt": float(number),
        "n_voxels_et": number % 3,
    }


def test_every_case_is_scored_once_and_with_its_patient() -> None:
    rows = [row(number) for number in range(24)]
    folds = folds_of(rows, 4)
    scored = [
        case["case_id"] for fold in range(4) for case in split_of_fold(rows, folds, fold) if case["split"] == "test"
    ]
    assert sorted(scored) == [case["case_id"] for case in rows]
    for fold in range(4):
        of_split: dict[str, set[str]] = {}
        for case in split_of_fold(rows, folds, fold):
            of_split.setdefault(case["split"], set()).add(case["patient_id"])
        assert {name: len(patients) for name, patients in of_split.items()} == {"test": 3, "train": 8, "val": 1}
        assert sum(map(len, of_split.values())) == 12  # none in two


def test_too_few_patients_for_the_folds_are_one_line() -> None:
    with pytest.raises(BenchmarkError, match=r"^3 labelled patients are too few for 4 folds; use fewer --folds$"):
        folds_of([row(number) for number in range(6)], 4)


# Trials


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return generate_dataset(tmp_path_factory.mktemp("prepared"), 6, SHAPE)


def site(data: str, out: Path, **changes: Any) -> Site:
    given = ["screen", "--data", data, "--out", str(out), "--quick", "--folds", "2", "--device", "cpu"]
    found = site_of(parsed(given), data)
    return dataclasses.replace(found, base=dataclasses.replace(found.base, **{"steps": 2, **changes}))


def all_background(config: TrainConfig, _split: Sequence[SplitRow], _device: str) -> Trained:
    def labels(case: Case) -> Labels:
        assert case.labels is not None
        return np.zeros_like(case.labels)

    return Trained(labels=labels, modalities=config.modalities, n_steps=2, slices_per_s=1.0)


EMPTY = Entry(name="empty", train=all_background)


def test_trial_scores_the_cases_of_its_fold(data: str, tmp_path: Path) -> None:
    place = site(data, tmp_path)
    assert run_trials([Trial(EMPTY, 0, 0)], place, print) == []
    found = recipe_trials.read_trials(str(tmp_path))
    assert set(found["case_id"]) == {case_id for case_id, fold in place.folds.items() if fold == 0}
    assert set(found["dice"]) == {0.0}  # nothing found, where every region is


def test_failed_trial_is_named_and_tried_again_and_the_others_are_kept(data: str, tmp_path: Path) -> None:
    attempts: list[int] = []

    def fail_once(config: TrainConfig, split: Sequence[SplitRow], device: str) -> Trained:
        attempts.append(len(attempts))
        if len(attempts) == 1:
            raise BratsError("diverged")
        return all_background(config, split, device)

    trials = [Trial(Entry(name="bad", train=fail_once), 0, 0), Trial(EMPTY, 0, 0)]
    assert run_trials(trials, site(data, tmp_path), print) == ["bad, fold 0, seed 0: diverged"]
    said: list[str] = []
    assert run_trials(trials, site(data, tmp_path), said.append) == []
    assert [line.partition(":")[0] for line in said] == ["1/2 bad, fold 0, seed 0"]


def test_entry_that_the_dataset_is_too_old_for_is_one_line(tmp_path: Path) -> None:
    prepared = generate_dataset(tmp_path / "prepared", 6, SHAPE)
    table = storage.read_table(cases_path(prepared), PREPARED_CASES).to_pylist()
    older = PREPARED_CASES.table([{**row, "et_per_slice": None} for row in table])
    storage.write_table(cases_path(prepared), PREPARED_CASES, older)
    trial = Trial(dataclasses.replace(entry_of("et-half"), train=all_background), 0, 0)
    (failed,) = run_trials([trial], site(prepared, tmp_path), print)
    assert failed.startswith(f"et-half, fold 0, seed 0: --et-ratio: {prepared} does not count the ET voxels")


def test_trials_with_other_settings_are_not_mixed(data: str, tmp_path: Path) -> None:
    run_trials([Trial(EMPTY, 0, 0)], site(data, tmp_path), print)
    with pytest.raises(BenchmarkError, match=r"trials.parquet: made with other steps; choose another --out$"):
        run_trials([Trial(EMPTY, 1, 0)], site(data, tmp_path, steps=3), print)


@pytest.mark.parametrize(("name", "value"), [("ema", 0.5), ("batch_size", 4)])
def test_trials_of_two_defaults_are_not_mixed(data: str, tmp_path: Path, name: str, value: float) -> None:
    run_trials([Trial(EMPTY, 0, 0)], site(data, tmp_path), print)
    with pytest.raises(BenchmarkError, match=rf"trials.parquet: made with other {name}; choose another --out$"):
        run_trials([Trial(EMPTY, 1, 0)], site(data, tmp_path, **{name: value}), print)


def test_trials_of_cases_that_changed_are_not_mixed(data: str, tmp_path: Path) -> None:
    before = site(data, tmp_path)
    run_trials([Trial(EMPTY, 0, 0)], before, print)
    changed = [{**row, "source_hash": "another"} for row in before.rows]
    with pytest.raises(BenchmarkError, match=r"made with other cases; choose another --out$"):
        run_trials([Trial(EMPTY, 1, 0)], dataclasses.replace(before, rows=changed), print)


def test_network_of_an_interrupted_first_trial_is_not_taken_up_with_other_bounds(data: str, tmp_path: Path) -> None:
    def interrupt(*_: object) -> Trained:
        raise KeyboardInterrupt

    trial = Trial(Entry(name="stopped", train=interrupt), 0, 0)
    with pytest.raises(KeyboardInterrupt):
        run_trials([trial], site(data, tmp_path), print)
    with pytest.raises(BenchmarkError, match="no trial is done yet; run `screen` again, which goes on"):
        recipe_trials.read_trials(str(tmp_path))
    with pytest.raises(BenchmarkError, match=r"made with other steps; choose another --out$"):
        run_trials([trial], site(data, tmp_path, steps=3), print)


def test_report_without_trials_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"^benchmarks\.recipe: .*: no trials\.parquet here yet; run `screen` first$"
    ):
        main(["report", "--out", str(tmp_path)])


def test_command_without_data_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(["screen", "--out", "anywhere"])
    assert "--data: name a prepared dataset, or give --quick" in capsys.readouterr().err


@pytest.mark.usefixtures("one_thread")
def test_quick_screening_trains_scores_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["screen", "--quick", "--out", str(tmp_path), "--only", "flips", "--folds", "2", "--device", "cpu"]
    main(command)
    said = capsys.readouterr().out
    assert "4/4 flips, fold 1, seed 0: WT " in said
    assert "| default | " in said
    assert list((tmp_path / "networks").iterdir()) == []  # checkpoints are gone
    main(command)
    assert "fold 1, seed 0: WT" not in capsys.readouterr().out  # done before


@pytest.mark.usefixtures("one_thread")
def test_interrupted_network_goes_on_from_its_checkpoint(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(DEFAULT, 0, 0)
    whole, interrupted = (site(data, tmp_path / name, steps=6) for name in ("whole", "interrupted"))

    def end_early(*given: Any, **options: Any) -> Any:
        return fit(*given, **{**options, "ends_early": lambda: True})

    with monkeypatch.context() as patch:
        patch.setattr(plain, "fit", end_early)
        n_steps = recipe_trials.run_trial(trial, interrupted)[0]["n_steps"]
    assert n_steps < 6
    found, expected = (recipe_trials.run_trial(trial, place) for place in (interrupted, whole))
    assert [(row["n_steps"], row["dice"]) for row in found] == [(row["n_steps"], row["dice"]) for row in expected]
