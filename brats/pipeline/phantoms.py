"""The phantom dataset of a run without data: made once, the cases in parallel on the cluster."""

from collections import Counter
from typing import Any

from brats import storage
from brats.cluster.datasets import rows_of
from brats.console import Progress, say

N_PHANTOMS = 26  # 18 to train on, 4 to validate on, 4 to test
SEED = 0
FILES_PER_PHANTOM = 5


def make_phantoms(root: str) -> str:
    """Write the phantom cases below a folder; those already there are kept. Returns the folder."""
    import ray.data

    from brats.data.phantom.case import case_id, write_name_mapping

    whole = [file for file in _files_below(root) if not file.name.startswith(".")]
    written = Counter(file.path.split("/")[-2] for file in whole)
    todo = [index for index in range(1, N_PHANTOMS + 1) if written[case_id(index)] < FILES_PER_PHANTOM]
    if todo:
        say("phantoms", f"no --data given: making {len(todo)} phantom cases in {root}")
        write_name_mapping(root, N_PHANTOMS, SEED)
        dataset = ray.data.from_items([{"index": index} for index in todo], override_num_blocks=len(todo))
        progress = Progress("phantoms", len(todo), "cases")
        for _ in rows_of(dataset.map(_write_phantom, fn_kwargs={"root": root}, num_cpus=1)):
            progress.advance()
    return root


def _files_below(root: str) -> list[storage.FileInfo]:
    try:
        return storage.list_files(root)
    except FileNotFoundError:
        return []


def _write_phantom(row: dict[str, Any], root: str) -> dict[str, Any]:
    """Ray step: write one phantom case."""
    from brats.data.phantom.case import write_phantom

    return {"case_id": write_phantom(root, row["index"], SEED)}
