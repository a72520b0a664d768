"""What was measured, on what: hardware and versions, the JSON files and the table."""

import datetime
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.harness import LIMIT, Row

RESULTS = Path(__file__).parent / "results"
VERSION = 2  # of a file of results; one without a version is of the first, whose rows have no measurements
PACKAGES = (
    "brats-ray", "ray", "torch", "segmentation-models-pytorch", "numpy", "scipy", "pyarrow", "nibabel", "deflate",
    "isal", "monai", "torchio", "medpy", "surface-distance",
)  # fmt: skip


def hardware() -> dict[str, Any]:
    """Processor, cores this process may use, memory and, where torch can use one, the GPU."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": _gpu_model(),
    }


def _cpu_model() -> str:
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return model[1] if model else platform.machine()


def _gpu_model() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def versions() -> dict[str, str]:
    """Of Python and of every package that takes part, those of the peers that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware_slug(machine: Mapping[str, Any]) -> str:
    """A short name for file names: the GPU where there is one, else the processor and its cores."""
    processor = re.sub(r"\(.*?\)|processor", "", machine["cpu"], flags=re.IGNORECASE)
    words = machine["gpu"] or f"{processor} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def document(rows: Sequence[Row], machine: Mapping[str, Any], date: str) -> dict[str, Any]:
    """The results as `latest.json` has them."""
    return {
        "version": VERSION,
        "hardware": dict(machine),
        "date": date,
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
    }


def write_results(
    rows: Sequence[Row],
    details: Mapping[str, Any],
    *,
    folder: Path = RESULTS,
    name: str = "",
    latest: bool = True,
) -> Path:
    """Write `<date>-<hardware>.json`, with the details, and `latest.json`; return the first.

    name: added to the name of the dated file, for a run that is not of all benchmarks
    """
    machine, date = hardware(), datetime.date.today().isoformat()
    folder.mkdir(parents=True, exist_ok=True)
    content = document(rows, machine, date)
    path = folder / ("-".join(filter(None, (date, hardware_slug(machine), name))) + ".json")
    _write(path, {**content, "details": dict(details)})
    if latest:
        _write(folder / "latest.json", content)
    return path


def _write(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    temporary.replace(path)


HEADINGS = ("stage", "ours", "peer", "its value", "unit", "ratio", "target", "met", "of the limit")


def table(rows: Sequence[Row]) -> str:
    """All rows as one Markdown table; the last column says how much of the limit a stage reaches."""
    return aligned(HEADINGS, [_cells(row) for row in rows])


def aligned(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table with its columns under each other."""
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    lines = [headings, ["-" * width for width in widths], *cells]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    is_limit = row.peer.startswith(LIMIT)
    return (
        row.stage,
        f"{row.ours:.4g}",
        row.peer,
        f"{row.peer_value:.4g}",
        row.unit,
        f"{row.ratio:.3g}",
        "" if row.target is None else f"{row.target:g}",
        "" if row.met is None else "yes" if row.met else "NO",
        f"{row.ratio:.0%}" if is_limit else "",
    )
