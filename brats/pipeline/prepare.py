"""From case folders to a prepared dataset: find, then read, crop and write one case at a time, then split."""

import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

from brats import storage
from brats.cluster.datasets import from_cases, run_cases
from brats.cluster.identify import identify
from brats.cluster.owned import Ownership, owned
from brats.cluster.per_case import file_to_file
from brats.cluster.preflight import check_disk
from brats.config import PrepareConfig
from brats.console import say, some
from brats.data.cases import CaseFiles, FoundCases, Hdf5Options, count_codings, find_cases
from brats.data.challenges import AUTO, usual_coding
from brats.data.dataset import (
    PREPARED_CASES,
    case_row,
    cases_path,
    is_prepared,
    read_case_table,
    slices_dir,
    slices_path,
)
from brats.data.layouts import LAYOUTS, copy_warnings
from brats.data.plausibility import Warned, warning_lines
from brats.data.preprocess import read_case
from brats.data.rejects import Reject, check_rejects, write_rejects
from brats.data.slices import SliceFile, encode_case
from brats.data.sources import from_rows, same_sources, source_hash, to_rows
from brats.data.split import Assignment, LabelledCase, join_patients, split_patients
from brats.errors import BratsError, ConfigError
from brats.saved_config import SavedConfig


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset: where it is, its cases (rows of `cases.parquet`) and what was rejected."""

    out: str
    cases: list[dict[str, Any]]
    rejects: list[Reject]

    def summary(self) -> str:
        """The result, for the console."""
        counts = {split: sum(row["split"] == split for row in self.cases) for split in ("train", "val", "test")}
        unlabelled = sum(row["split"] is None for row in self.cases)
        parts = [f"{count} {split}" for split, count in counts.items()]
        parts += [f"{unlabelled} without segmentation"] if unlabelled else []
        lines = [f"prepared {len(self.cases)} cases ({', '.join(parts)}) in {self.out}"]
        lines.append(f"  coding {count_codings(row['coding'] for row in self.cases)}")
        lines += [f"  same patient: {', '.join(names)}" for names in self.duplicates()]
        lines += [f"  {line}" for line in copy_warnings({row["layout"] for row in self.cases})]
        warnings = [Warned(row["case_id"], text) for row in self.cases for text in row["warnings"]]
        lines += warning_lines(warnings, f"the column warnings of {cases_path(self.out)}")
        lines += [f"  rejected {reject}" for reject in self.rejects]
        return "\n".join(lines)

    def duplicates(self) -> list[list[str]]:
        """Groups of cases that show the same brain voxels under different names."""
        by_hash: dict[str, list[str]] = defaultdict(list)
        for row in self.cases:
            by_hash[row["voxel_hash"]].append(row["case_id"])
        return [names for names in by_hash.values() if len(names) > 1]


def prepare(config: PrepareConfig, check: Callable[[Mapping[str, str | None]], None] | None = None) -> Prepared:
    """Prepare every case below `config.data` into `config.out`, except those already prepared from the same files.

    A case that is no longer below `config.data` leaves the dataset.

    check: called before a prepared case is changed, with the `source_hash` of every case found, None for those that
           are not prepared; may raise an error

    Raises BratsError when no case is usable or, with `strict`, when one was rejected; ConfigError when most of the
    prepared cases are gone, and where another job is at work in that folder.
    """
    with owned(config.out, "prepare") as ownership:
        return _prepare(config, ownership, check)


def _prepare(
    config: PrepareConfig, ownership: Ownership, check: Callable[[Mapping[str, str | None]], None] | None
) -> Prepared:
    data, out = config.data, config.out
    found = find_cases(data, config.modalities, config.coding, Hdf5Options.of(config))
    SavedConfig.of("prepare", config).claim(out)
    known = known_cases(out)
    _check_coding_kept(config, {case_id: row for case_id, row in known.items() if case_id in here(found)})
    todo = _find_todo(found.cases, known, config.modalities, check)
    gone = find_gone(known.keys(), found, data, out)
    again = [files.case_id for files in todo if files.case_id in known]
    _say_found(found, data, n_done=len(found.cases) - len(todo), n_changed=len(again))
    check_disk(out, sum(files.source_bytes(config.modalities) for files in todo))
    mark_unfinished(out, again)
    rejects = list(found.rejects)

    def take(case_id: str, outcome: dict[str, Any] | Reject) -> None:
        if isinstance(outcome, Reject):
            rejects.append(outcome)
        else:
            known[case_id] = outcome

    try:
        _prepare_cases(todo, config.modalities, out, take)
    finally:
        rejects.sort(key=lambda reject: reject.case_id)
        if not ownership.loss:
            write_rejects(out, rejects)
    ownership.check()
    storage.remove_unfinished(slices_dir(out))
    leaving = known.keys() & {*gone, *(reject.case_id for reject in rejects if not reject.transient)}
    if leaving == known.keys():
        raise BratsError(f"{data}: no usable case; the first of {len(rejects)} rejected: {rejects[0]}")
    rows = _write_cases(config, out, {case_id: row for case_id, row in known.items() if case_id not in leaving})
    for case_id in leaving:  # after the table, which no longer lists them
        storage.remove(slices_path(out, case_id))
    if gone:
        say("prepare", f"no longer in {data}, removed from {out}: {some(gone)}")
    prepared = Prepared(out, rows, rejects)
    check_rejects(prepared, strict=config.strict)
    return prepared


def _say_found(found: FoundCases, data: str, *, n_done: int, n_changed: int) -> None:
    changed = f", {n_changed} changed since" if n_changed else ""
    say("prepare", f"{len(found.cases)} cases below {data}; {n_done} done before{changed}")
    for note in found.notes():
        say("prepare", note)


def known_cases(out: str) -> dict[str, dict[str, Any]]:
    """Rows of the prepared cases by case id, from the table or, after an interrupted run, from its file."""
    try:
        written = {file.name.removesuffix(".parquet") for file in storage.list_files(slices_dir(out))}
    except FileNotFoundError:
        written = set()
    rows = read_case_table(out) if is_prepared(out) else []
    known = {row["case_id"]: row for row in rows if row["case_id"] in written and row["sources"]}
    for case_id in sorted(written - known.keys()):
        if not case_id.startswith("."):
            known[case_id] = case_row(SliceFile(slices_path(out, case_id)).description)
    return known


def _check_coding_kept(config: PrepareConfig, known: Mapping[str, dict[str, Any]]) -> None:
    """Raise ConfigError where cases were prepared in a coding that was asked for and is not any more.

    They would be rejected now, and lost to the dataset, or change their labels.
    """
    if config.coding != AUTO:
        return
    for row in known.values():
        labelled = row["volume_ml_wt"] is not None
        usual = usual_coding(row["case_id"], LAYOUTS[row["layout"]], labelled=labelled)
        if usual is None or row["coding"] != usual.name:
            raise ConfigError(
                f"--coding: {config.out} was prepared with --coding {row['coding']} (case {row['case_id']}); "
                "add it again, or choose another --out"
            )


def here(found: FoundCases) -> set[str]:
    """The ids of the cases that a folder holds, usable or not."""
    return {*(files.case_id for files in found.cases), *(reject.case_id for reject in found.rejects)}


def find_gone(known: Set[str], found: FoundCases, data: str, out: str) -> list[str]:
    """The prepared cases that are no longer below a folder.

    Raises ConfigError where these are more than half of them: the folder is rather another one, or half copied.
    """
    gone = sorted(known - here(found))
    if 2 * len(gone) > len(known):
        raise ConfigError(
            f"--data: {data} lacks {len(gone)} of the {len(known)} cases that {out} was made from ({some(gone)}); "
            "name the folder that holds them, or choose another --out"
        )
    return gone


def _find_todo(
    cases: Sequence[CaseFiles],
    known: Mapping[str, dict[str, Any]],
    modalities: Sequence[str],
    check: Callable[[Mapping[str, str | None]], None] | None,
) -> list[CaseFiles]:
    """The cases that are not prepared from the files and in the coding of today; updates the rows of the others.

    A reject is tried again: it may have been repaired.
    """
    before = {case_id: from_rows(row["sources"]) for case_id, row in known.items()}
    now = identify(before, {files.case_id: files.sources(modalities) for files in cases}, "prepare")
    if check:
        check({name: source_hash(sources) if name in known else None for name, sources in now.items()})
    todo = []
    for files in cases:
        row, sources = known.get(files.case_id), now[files.case_id]
        if row and row["coding"] == files.coding and same_sources(from_rows(row["sources"]), sources):
            row.update(sources=to_rows(sources), patient_id=files.patient_id, grade=files.grade)
        else:
            todo.append(files)
    return todo


def mark_unfinished(out: str, case_ids: Collection[str]) -> None:
    """Take the sources of cases off the table, so that a start after an interruption looks into their files."""
    if not case_ids or not is_prepared(out):
        return
    rows = [
        {**row, "source_hash": None, "sources": None} if row["case_id"] in case_ids else row
        for row in read_case_table(out)
    ]
    storage.write_table(cases_path(out), PREPARED_CASES, PREPARED_CASES.table(rows))


def _prepare_cases(
    todo: Sequence[CaseFiles], modalities: Sequence[str], out: str, take: Callable[[str, Any], None]
) -> None:
    """Run `prepare_case` for every case on the cluster; hand its row or its reject to `take` as it is done."""
    if not todo:
        return
    step = functools.partial(prepare_case, modalities=modalities, out=out)
    dataset = file_to_file(from_cases({files.case_id: files for files in todo}), step, doing="preparing")
    run_cases(dataset, "prepare", len(todo), take)


def prepare_case(files: CaseFiles, modalities: Sequence[str], out: str) -> dict[str, Any]:
    """Step: prepare one case and write it; return its row of `cases.parquet`."""
    case = read_case(files, modalities)
    content, description = encode_case(case)
    storage.write_bytes(slices_path(out, files.case_id), content)
    return {**case_row(description), "sources": to_rows(case.sources)}


def _write_cases(config: PrepareConfig, out: str, known: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Join patients, split them, and write `cases.parquet` unless it says the same already."""
    rows = [known[case_id] for case_id in sorted(known)]
    patients = join_patients(
        {row["case_id"]: row["patient_id"] for row in rows},
        {row["case_id"]: row["voxel_hash"] for row in rows},
    )
    labelled = [
        LabelledCase(
            case_id=row["case_id"],
            patient_id=patients[row["case_id"]],
            volume_ml=row["volume_ml_wt"],
            has_et=row["n_voxels_et"] > 0,
        )
        for row in rows
        if row["volume_ml_wt"] is not None
    ]
    before = read_case_table(out) if is_prepared(out) else []
    previous = {row["case_id"]: Assignment(row["split"], row["fold"]) for row in before if row["split"]}
    assigned = split_patients(
        labelled,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        folds=config.folds,
        seed=config.seed,
        previous=previous,
    )
    for row in rows:
        own = assigned.get(row["case_id"])
        row["patient_id"] = patients[row["case_id"]]
        row["split"], row["fold"] = (own.split, own.fold) if own else (None, None)
    table = PREPARED_CASES.table(rows)
    if not is_prepared(out) or not storage.read_table(cases_path(out), PREPARED_CASES).equals(table):
        storage.write_table(cases_path(out), PREPARED_CASES, table, config=asdict(config))
    return rows
