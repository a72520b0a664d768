"""Hashes of source files, where size and stamp do not tell whether a file is the same as before."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from brats.cluster.datasets import from_cases, run_cases
from brats.cluster.per_case import file_to_file
from brats.console import say
from brats.data.nifti import read_content
from brats.data.rejects import Reject
from brats.data.sources import SourceFile, Sources, content_hash, only_content_tells, with_known_hashes
from brats.storage import FileInfo


def identify(before: Mapping[str, Sources], now: Mapping[str, Sources], stage: str) -> dict[str, Sources]:
    """The files of every case found now, with the hashes that it takes to compare them with those of before.

    Only files of the same size as before, but with another stamp or in another place, are read, on the cluster. One
    that cannot be read stays without a hash, and so differs from what it was.
    """
    found = {case_id: with_known_hashes(before.get(case_id, ()), files) for case_id, files in now.items()}
    unclear = {
        case_id: files for case_id, files in found.items() if only_content_tells(before.get(case_id, ()), files)
    }
    if not unclear:
        return found
    say(stage, f"reading the files of {len(unclear)} cases, to see whether the results there are of the same")

    def take(case_id: str, outcome: Any) -> None:
        if not isinstance(outcome, Reject):
            found[case_id] = outcome

    dataset = file_to_file(from_cases(unclear), read_hashes, doing="comparing")
    run_cases(dataset, stage, len(unclear), take)
    return found


def read_hashes(sources: Sources) -> Sources:
    """Step: read the files whose hash is not known. Raises CaseError for one that cannot be read."""
    return tuple(file if file.hash else replace(file, hash=_read_hash(file)) for file in sources)


def _read_hash(file: SourceFile) -> str:
    return content_hash(read_content(FileInfo(file.path, file.size)))
