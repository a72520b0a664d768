"""The split of patients: fractions, stratification, seed, folds, and that nobody moves when cases are added."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from brats.data.split import Assignment, LabelledCase, deal_folds, hold_out, join_patients, split_patients


def patients(n: int, *, with_et: int = 0, start: int = 0) -> list[LabelledCase]:
    """One case for each of n patients, with volumes 0, 1, 2 ... ml; the first `with_et` have enhancing tumour."""
    return [
        LabelledCase(case_id=f"case_{k:04}", patient_id=f"patient_{k:04}", volume_ml=k, has_et=k - start < with_et)
        for k in range(start, start + n)
    ]


def split(
    cases: Iterable[LabelledCase],
    *,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    folds: int = 5,
    seed: int = 0,
    previous: Mapping[str, Assignment] | None = None,
) -> dict[str, Assignment]:
    return split_patients(
        cases,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        folds=folds,
        seed=seed,
        previous=previous,
    )


def sizes(places: Mapping[str, Assignment]) -> dict[str, int]:
    return dict(Counter(place.split for place in places.values()))


# Patients


def test_cases_with_the_same_brain_voxels_are_one_patient_named_by_the_first() -> None:
    patient_of = {"case_1": "P9", "case_2": "P3", "case_3": "P5"}
    assert join_patients(patient_of, {"case_1": "x", "case_2": "x", "case_3": "y"}) == {
        "case_1": "P3",
        "case_2": "P3",
        "case_3": "P5",
    }


def test_joining_goes_through_chains_of_ids_and_voxels() -> None:
    # case_1 and case_2 share voxels, case_2 and case_3 the patient, case_3 and case_4 voxels again.
    patient_of = {"case_1": "P4", "case_2": "P2", "case_3": "P2", "case_4": "P1", "case_5": "P3"}
    voxels = {"case_1": "a", "case_2": "a", "case_3": "b", "case_4": "b", "case_5": "c"}
    joined = join_patients(patient_of, voxels)
    assert joined == {"case_1": "P1", "case_2": "P1", "case_3": "P1", "case_4": "P1", "case_5": "P3"}


def test_joining_does_not_depend_on_the_order_of_the_cases() -> None:
    random = np.random.default_rng(0)
    patient_of = {f"case_{k:02}": f"P{random.integers(20)}" for k in range(40)}
    voxels = {case_id: f"hash_{random.integers(30)}" for case_id in patient_of}
    joined = join_patients(patient_of, voxels)
    for _ in range(5):
        shuffled = [str(name) for name in random.permutation(list(patient_of))]
        assert join_patients({name: patient_of[name] for name in shuffled}, voxels) == joined
    for one in patient_of:
        for other in patient_of:
            if patient_of[one] == patient_of[other] or voxels[one] == voxels[other]:
                assert joined[one] == joined[other]


def test_patients_that_share_nothing_stay_apart() -> None:
    assert join_patients({"a": "P1", "b": "P2"}, {"a": "x", "b": "y"}) == {"a": "P1", "b": "P2"}


def test_visits_of_one_patient_stay_together() -> None:
    visits = [
        LabelledCase(case_id=f"p{k}-visit{visit}", patient_id=f"p{k}", volume_ml=k + visit, has_et=visit > 0)
        for k in range(30)
        for visit in range(1 + k % 3)
    ]
    places = split(visits)
    for k in range(30):
        assert len({places[case.case_id] for case in visits if case.patient_id == f"p{k}"}) == 1
    assert len(places) == len(visits)
    by_patient = {case.patient_id: places[case.case_id] for case in visits}
    assert sizes(by_patient) == {"train": 21, "val": 5, "test": 4}  # of 30 patients, not of 60 cases


# Fractions


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, {"train": 1}),
        (3, {"train": 2, "val": 1}),
        (5, {"train": 3, "val": 1, "test": 1}),
        (10, {"train": 7, "val": 2, "test": 1}),
        (100, {"train": 70, "val": 15, "test": 15}),
    ],
)
def test_each_split_gets_its_fraction_of_the_patients(n: int, expected: dict[str, int]) -> None:
    assert sizes(split(patients(n))) == expected


@pytest.mark.parametrize(
    ("val_fraction", "test_fraction", "expected"),
    [
        (0.0, 0.0, {"train": 40}),
        (0.0, 0.25, {"train": 30, "test": 10}),
        (0.25, 0.0, {"train": 30, "val": 10}),
        (0.45, 0.45, {"train": 4, "val": 18, "test": 18}),
    ],
)
def test_a_split_without_a_fraction_gets_nobody(
    val_fraction: float, test_fraction: float, expected: dict[str, int]
) -> None:
    assert sizes(split(patients(40), val_fraction=val_fraction, test_fraction=test_fraction)) == expected


def test_no_cases_give_no_places() -> None:
    assert split([]) == {}


# Stratification


@pytest.mark.parametrize("seed", range(5))
def test_every_split_and_fold_has_its_share_of_cases_with_et(seed: int) -> None:
    places = split(patients(100, with_et=60), seed=seed)
    with_et = Counter(places[f"case_{k:04}"].split for k in range(60))
    assert abs(with_et["train"] - 42) <= 1
    assert abs(with_et["val"] - 9) <= 1
    assert abs(with_et["test"] - 9) <= 1
    folds = Counter(places[f"case_{k:04}"].fold for k in range(60))
    assert all(abs(folds[fold] - 60 * 0.85 / 5) < 2 for fold in range(5))


@pytest.mark.parametrize("seed", range(5))
def test_every_split_has_its_share_of_small_and_of_large_tumours(seed: int) -> None:
    places = split(patients(100), seed=seed)
    for name, fraction in (("train", 0.70), ("val", 0.15), ("test", 0.15)):
        volumes = [k for k in range(100) if places[f"case_{k:04}"].split == name]
        for low in (0, 25, 50, 75):
            n_quarter = sum(low <= volume < low + 25 for volume in volumes)
            assert abs(n_quarter - 25 * fraction) <= 3


def test_a_patient_counts_as_with_et_when_any_visit_has_it() -> None:
    """Of four patients, alike but for ET in a second visit of two, the two splits get one of each."""
    visits = [
        LabelledCase(case_id=f"{patient}-{visit}", patient_id=patient, volume_ml=10, has_et=has_et)
        for patient, has_et in (("a", False), ("b", True), ("c", False), ("d", True))
        for visit, has_et in ((0, False), (1, has_et))
    ]
    for seed in range(8):
        places = split(visits, val_fraction=0, test_fraction=0.5, seed=seed)
        assert {places["a-0"].split, places["c-0"].split} == {"train", "test"}
        assert {places["b-0"].split, places["d-0"].split} == {"train", "test"}


# Seed


def test_the_same_seed_gives_the_same_split_whatever_the_order_of_the_cases() -> None:
    cases = patients(50, with_et=30)
    assert split(cases, seed=3) == split(cases[::-1], seed=3)


def test_another_seed_gives_another_split() -> None:
    cases = patients(50, with_et=30)
    tested = {
        tuple(name for name, place in split(cases, seed=seed).items() if place.split == "test") for seed in range(9)
    }
    assert len(tested) == 9


def test_over_many_seeds_everybody_is_tested_sometimes() -> None:
    tested: Counter[str] = Counter()
    for seed in range(300):
        tested.update(name for name, place in split(patients(20), seed=seed).items() if place.split == "test")
    assert len(tested) == 20
    assert min(tested.values()) >= 300 * 0.15 / 4


# Folds


def test_folds_part_everybody_outside_the_test_split_evenly() -> None:
    places = split(patients(103), folds=4)
    folds = Counter(place.fold for place in places.values() if place.split != "test")
    assert set(folds) == {0, 1, 2, 3}
    assert max(folds.values()) - min(folds.values()) <= 1
    assert all((place.fold is None) == (place.split == "test") for place in places.values())


# Cases that are added


def test_who_is_split_already_never_moves() -> None:
    places: dict[str, Assignment] = {}
    for n in (7, 8, 30, 100):
        grown = split(patients(n, with_et=n // 2), previous=places)
        assert {name: grown[name] for name in places} == places
        places = grown
    assert sizes(places) == {"train": 70, "val": 15, "test": 15}


def test_new_patients_go_where_the_fractions_lack_them() -> None:
    previous = {"case_0000": Assignment("train", 0), "case_0001": Assignment("train", 1)}
    grown = split(patients(4), val_fraction=0.25, test_fraction=0.25, folds=2, previous=previous)
    added = [grown["case_0002"], grown["case_0003"]]
    # One in four each for val and test: the third patient makes val due, the fourth test. Both folds have one
    # member, so the first takes the new one.
    assert sorted(place.split for place in added) == ["test", "val"]
    assert [place.fold for place in added if place.split == "val"] == [0]


def test_a_new_visit_joins_its_patient() -> None:
    cases = patients(20)
    places = split(cases)
    for case in cases:
        visit = LabelledCase(case_id="again", patient_id=case.patient_id, volume_ml=1, has_et=True)
        grown = split([*cases, visit], previous=places)
        assert grown["again"] == places[case.case_id]
        assert {name: grown[name] for name in places} == places


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Assignment("test", None), Assignment("train", 3), Assignment("train", 3)),
        (Assignment("val", 0), Assignment("train", 3), Assignment("train", 3)),
        (Assignment("test", None), Assignment("val", 1), Assignment("val", 1)),
        (Assignment("train", 4), Assignment("train", 2), Assignment("train", 2)),
    ],
)
def test_two_patients_found_to_be_one_end_on_the_same_side_never_tested(
    first: Assignment, second: Assignment, expected: Assignment
) -> None:
    cases = [LabelledCase(case_id=name, patient_id="one", volume_ml=1, has_et=True) for name in ("a", "b")]
    for previous in ({"a": first, "b": second}, {"b": first, "a": second}):
        assert split(cases, previous=previous) == {"a": expected, "b": expected}


def test_places_of_cases_that_are_gone_do_not_count() -> None:
    gone = {f"gone_{k}": Assignment("test", None) for k in range(50)}
    assert split(patients(10), previous=gone) == split(patients(10))


# Folds of a cross-validation, and what is held out to validate on


def visits(n: int) -> list[LabelledCase]:
    """Two cases of each of n patients, one with and one without enhancing tumour."""
    return [
        LabelledCase(case_id=f"{visit}_{k}", patient_id=str(k), volume_ml=k, has_et=visit == "second")
        for k in range(n)
        for visit in ("first", "second")
    ]


def test_folds_have_equally_many_patients_of_each_kind() -> None:
    fold_of = deal_folds(patients(20, with_et=10), 5, seed=0)
    assert Counter(fold_of.values()) == dict.fromkeys(range(5), 4)
    assert Counter(fold_of[f"case_{k:04}"] for k in range(10)) == dict.fromkeys(range(5), 2)
    largest = Counter(fold_of[f"case_{k:04}"] for k in (*range(5, 10), *range(15, 20)))
    assert largest == dict.fromkeys(range(5), 2)


def test_all_cases_of_a_patient_are_in_one_fold() -> None:
    fold_of = deal_folds(visits(7), 3, seed=1)
    assert len(fold_of) == 14
    assert all(fold_of[f"first_{k}"] == fold_of[f"second_{k}"] for k in range(7))


def test_folds_are_those_of_their_seed() -> None:
    cases = patients(30)
    assert deal_folds(cases, 5, seed=3) == deal_folds(cases[::-1], 5, seed=3)
    assert deal_folds(cases, 5, seed=3) != deal_folds(cases, 5, seed=4)


@pytest.mark.parametrize(("n_patients", "n_held_out"), [(1, 0), (2, 1), (3, 1), (5, 1), (20, 3), (40, 6)])
def test_held_out_is_the_fraction_of_the_patients_but_one_at_least(n_patients: int, n_held_out: int) -> None:
    assert len(hold_out(patients(n_patients), 0.15, seed=0)) == n_held_out


def test_a_patient_is_held_out_with_all_its_cases() -> None:
    held_out = hold_out(visits(6), 0.3, seed=2)
    assert len(held_out) == 4
    assert {name.partition("_")[2] for name in held_out if name.startswith("first")} == {
        name.partition("_")[2] for name in held_out if name.startswith("second")
    }
