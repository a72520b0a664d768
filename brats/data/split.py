"""A split of patients into train, val and test, and into folds: stratified, seeded and stable.

Patients, not cases: visits of one patient, and one patient under the names of two editions, stay together. A
patient already split is never moved by cases that are added later.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class LabelledCase:
    """What the split looks at.

    volume_ml: volume of the whole tumour
    has_et:    whether the reference has enhancing tumour
    """

    case_id: str
    patient_id: str
    volume_ml: float
    has_et: bool


@dataclass(frozen=True)
class Assignment:
    """What a patient is assigned to: a split and, outside the test split, a cross-validation fold from 0."""

    split: str
    fold: int | None


def join_patients(patient_ids: Mapping[str, str], voxel_hashes: Mapping[str, str]) -> dict[str, str]:
    """The patient of every case, once cases with the same brain voxels are joined.

    Both mappings are by case id. A joined patient has the first of its ids in sorted order.
    """
    leader = {patient: patient for patient in patient_ids.values()}

    def find(patient: str) -> str:
        while leader[patient] != patient:
            patient = leader[patient]
        return patient

    first_with: dict[str, str] = {}
    for case_id in sorted(patient_ids):
        patient = find(patient_ids[case_id])
        other = find(first_with.setdefault(voxel_hashes[case_id], patient))
        leader[max(patient, other)] = min(patient, other)
    return {case_id: find(patient) for case_id, patient in patient_ids.items()}


def split_patients(
    cases: Iterable[LabelledCase],
    *,
    val_fraction: float,
    test_fraction: float,
    folds: int,
    seed: int,
    previous: Mapping[str, Assignment] | None = None,
) -> dict[str, Assignment]:
    """The assignment of every case, by case id.

    previous: assignments made before, by case id. They are kept; only new patients are dealt. A patient whose cases
              were split apart before they were known to be one person goes to the first of train, val and test
              that has any of them: nobody is tested on who may have been trained on.
    """
    by_patient = _group(cases)
    assigned: dict[str, Assignment] = {}
    for patient, own in by_patient.items():
        known = {previous[case.case_id] for case in own if previous and case.case_id in previous}
        if known:
            assigned[patient] = min(known, key=lambda item: (SPLITS.index(item.split), item.fold or 0))
    order = _stratified_order(
        by_patient, [p for p in by_patient if p not in assigned], seed, val_fraction, test_fraction
    )
    fractions = {"train": 1 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
    splits = _deal(order, fractions, Counter(item.split for item in assigned.values()))
    dealt_to_folds = [patient for patient in order if splits[patient] != "test"]
    already = Counter(str(item.fold) for item in assigned.values() if item.fold is not None)
    fold_of = _deal(dealt_to_folds, {str(fold): 1 / folds for fold in range(folds)}, already)
    for patient in order:
        split = splits[patient]
        assigned[patient] = Assignment(split, None if split == "test" else int(fold_of[patient]))
    return {case.case_id: assigned[patient] for patient, own in by_patient.items() for case in own}


def deal_folds(cases: Iterable[LabelledCase], folds: int, seed: int) -> dict[str, int]:
    """The fold, from 0, of every case, by case id. Each fold has its share of each kind of patient."""
    by_patient = _group(cases)
    order = _stratified_order(by_patient, list(by_patient), seed, 1 / folds)
    fold_of = _deal(order, {str(fold): 1 / folds for fold in range(folds)}, {})
    return {case.case_id: int(fold_of[patient]) for patient, own in by_patient.items() for case in own}


def hold_out(cases: Iterable[LabelledCase], fraction: float, seed: int) -> set[str]:
    """The ids of the cases of this fraction of the patients, but of one patient at least where there are two."""
    by_patient = _group(cases)
    fraction = max(fraction, 1 / max(2, len(by_patient)))
    order = _stratified_order(by_patient, list(by_patient), seed, fraction)
    pile_of = _deal(order, {"rest": 1 - fraction, "held out": fraction}, {})
    return {case.case_id for patient in order if pile_of[patient] == "held out" for case in by_patient[patient]}


def _group(cases: Iterable[LabelledCase]) -> dict[str, list[LabelledCase]]:
    """The cases of each patient."""
    by_patient: dict[str, list[LabelledCase]] = defaultdict(list)
    for case in cases:
        by_patient[case.patient_id].append(case)
    return by_patient


def _stratified_order(
    by_patient: Mapping[str, Sequence[LabelledCase]],
    patients: Sequence[str],
    seed: int,
    *fractions: float,
) -> list[str]:
    """Patients by presence of ET and tumour volume, shuffled within runs of similar ones.

    Dealing this order out in turn gives every split its fraction of each kind; a run is about as long as it takes
    until each split has had its turn.
    """

    def kind(patient: str) -> tuple[bool, float, str]:
        own = by_patient[patient]
        return any(case.has_et for case in own), max(case.volume_ml for case in own), patient

    alike = sorted(patients, key=kind)
    smallest = min((fraction for fraction in fractions if fraction > 0), default=1.0)
    run = max(2, round(1 / smallest))
    shuffled: list[str] = []
    for start in range(0, len(alike), run):
        shuffled += sorted(alike[start : start + run], key=lambda patient: _draw(seed, patient))
    return shuffled


def _draw(seed: int, patient: str) -> bytes:
    return hashlib.sha256(f"{seed}:{patient}".encode()).digest()


def _deal(patients: Sequence[str], fractions: Mapping[str, float], already: Mapping[str, int]) -> dict[str, str]:
    """Give each patient in turn to the pile that is furthest below its fraction."""
    counts = {pile: already.get(pile, 0) for pile in fractions}
    dealt = {}
    for patient in patients:
        total = sum(counts.values()) + 1
        pile = max(fractions, key=lambda name: fractions[name] * total - counts[name])
        counts[pile] += 1
        dealt[patient] = pile
    return dealt
