"""Files of a run or of predictions, read once for a report: configuration, tables and epochs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from brats import storage
from brats.data.plausibility import Warned
from brats.data.rejects import Reject, read_rejects
from brats.data.run_split import read_prepared, read_split, split_path, test_dir
from brats.errors import ConfigError
from brats.model.hardware import hardware_of
from brats.model.history import read_history
from brats.saved_config import config_path
from brats.score.parts import read_parts
from brats.score.summary import SUMMARY
from brats.score.tables import CASE_METRICS, NOTEBOOK, TableName, metrics_path
from brats.score.uncertainty_tables import CURVES, RANKING, UNCERTAINTY
from brats.storage import TableKind

TABLES: dict[TableName, TableKind] = {
    "cases": CASE_METRICS,
    "summary": SUMMARY,
    "notebook": NOTEBOOK,
    "uncertainty": UNCERTAINTY,
    "uncertainty_curves": CURVES,
    "ranking": RANKING,
}

MAX_DEPTH = 2  # of the folders of folds and networks below a run: fold_0/seed_1
Conventions = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The metric tables of a folder, and what their columns mean, by table; without those that are not there."""

    tables: Mapping[str, pd.DataFrame]
    conventions: Mapping[str, Conventions]

    def table(self, name: TableName) -> pd.DataFrame:
        """A table; an empty one where it is not there."""
        return self.tables.get(name, pd.DataFrame(columns=TABLES[name].schema.names))

    def convention(self, name: TableName, column: str) -> str:
        """What a column means; "" where the table does not say."""
        of_table = self.conventions.get(name, {})
        found = (meaning for names, meaning in of_table.items() if column in names.split(", "))
        return next(found, "")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that a page reports, but for voxels.

    job:         train, predict, evaluate; "" where no configuration is beside the files
    config:      of config.json: what shaped the result, and what did not
    histories:   the epochs of each network; of a run of one network by the name ""
    hardware:    what they were trained on, in words, each once; none where nothing says
    split:       rows of the run's split; none of other folders
    data:        what the cases are read from: a prepared dataset or case folders; "" where nothing says
    predictions: the folder with the mask of each case
    warnings:    of the cases that were predicted
    """

    folder: str
    job: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    histories: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    hardware: Sequence[str] = ()
    scores: Scores | None = None
    split: Sequence[Mapping[str, Any]] = ()
    data: str = ""
    predictions: Mapping[str, str] = field(default_factory=dict)
    rejects: Sequence[Reject] = ()
    warnings: Sequence[Warned] = ()

    @property
    def case_table(self) -> pd.DataFrame:
        """The rows of `metrics/cases.parquet`; none where nothing was scored."""
        return self.scores.table("cases") if self.scores else pd.DataFrame(columns=CASE_METRICS.schema.names)


def read_findings(folder: str) -> Findings:
    """Read what a folder has.

    Raises ConfigError for a folder that is neither a run nor a set of predictions, StorageError for a table that is
    damaged or of another version.
    """
    files = _relative_files(folder)
    networks = _networks(folder, files)
    scored = _scored_folder(folder)
    if not networks and scored is None:
        raise ConfigError(
            f"--run: {folder} has no history.parquet; give the --out of a finished train.py, or of predict.py or "
            "evaluate.py"
        )
    config = _read_config(folder)
    result, execution = config.get("result", {}), config.get("execution", {})
    is_run = storage.exists(split_path(folder))
    results = scored or folder
    return Findings(
        folder=folder,
        job=str(config.get("job", "")),
        config={**execution, **result},
        histories={name: read_history(run) for name, run in networks.items()},
        hardware=hardware_of(networks.values()),
        scores=None if scored is None else read_scores(scored),
        split=read_split(folder) if is_run else (),
        data=read_prepared(folder) if is_run else str(execution.get("data") or ""),
        predictions={case_id: _below(folder, place) for case_id, place in _masks(files)},
        rejects=read_rejects(results),
        warnings=[
            Warned(part.case_id, warning) for part in read_parts(results).values() for warning in part.warnings
        ],
    )


def read_scores(folder: str) -> Scores:
    """The metric tables of a folder."""
    tables: dict[str, pd.DataFrame] = {}
    conventions: dict[str, Conventions] = {}
    for name, kind in TABLES.items():
        path = metrics_path(folder, name)
        if storage.exists(path):
            table = storage.read_table(path, kind)
            tables[name] = table.to_pandas()
            conventions[name] = storage.read_metadata(table.schema, path, kind).get("conventions", {})
    return Scores(tables=tables, conventions=conventions)


def _read_config(folder: str) -> dict[str, Any]:
    path = config_path(folder)
    return storage.read_json(path) if storage.exists(path) else {}


def _scored_folder(folder: str) -> str | None:
    """The folder with the metric tables: this one, as of a cross-validation, or the test split of a run."""
    folders = (folder, test_dir(folder))
    return next((place for place in folders if storage.exists(metrics_path(place, "cases"))), None)


def _relative_files(folder: str) -> list[str]:
    """The files of a folder by their paths below it; none where there is no such folder."""
    try:
        return [found.path.removeprefix(folder).strip("/") for found in storage.list_files(folder)]
    except FileNotFoundError:
        return []


def _below(folder: str, name: str) -> str:
    return storage.join(folder, name) if name else folder


def networks_in(folder: str) -> dict[str, str]:
    """The runs of one network, by name, that a run consists of: itself by the name "", or several below it."""
    return _networks(folder, _relative_files(folder))


def _networks(folder: str, files: Sequence[str]) -> dict[str, str]:
    file = "history.parquet"
    if file in files:
        return {"": folder}
    found = [name for name in files if name.endswith(f"/{file}") and name.count("/") <= MAX_DEPTH]
    return {name: _below(folder, name) for name in (path.removesuffix(f"/{file}") for path in found)}


def _masks(files: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The id of each case that was predicted, and the folder of its results: "", test, or those of folds."""
    for name in files:
        *place, kind, file = ["", *name.split("/")]
        if kind == "masks" and len(place) <= 1 + MAX_DEPTH and file.endswith(".parquet"):
            yield file.removesuffix(".parquet"), "/".join(place[1:])
