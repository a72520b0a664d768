"""Two predictions against each other, from their metric tables: `metrics/against.parquet`."""

from dataclasses import replace

from brats import storage
from brats.data.run_split import test_dir
from brats.errors import ConfigError
from brats.score.against import AGAINST, Comparison, Scored, compare_against
from brats.score.tables import NOTEBOOK, metrics_dir, metrics_path, read_case_metrics


def against_path(out: str) -> str:
    return storage.join(metrics_dir(out), "against.parquet")


def scored_folder(path: str) -> str | None:
    """The folder whose metric tables are meant: that of a prediction or evaluation, or the test split of a run."""
    return next(
        (folder for folder in (path, test_dir(path)) if storage.exists(metrics_path(folder, "cases"))), None
    )


def against(predictions: str, other: str, out: str | None = None) -> Comparison:
    """Compare the scores of predictions, in their folder or evaluated into `out`, with those of other predictions.

    The table is written into `out`, else beside the tables of the predictions.

    Raises ConfigError for a folder without scores, the same folder twice, and without a case in both.
    """
    ours_dir = _find("--predictions", scored_folder(predictions) or out or predictions)
    theirs_dir = _find("--against", other)
    if ours_dir == theirs_dir:
        raise ConfigError(f"--against: {theirs_dir} is what --predictions names; name another prediction")
    ours, theirs = _read("--predictions", ours_dir), _read("--against", theirs_dir)
    if not ours.case_ids & theirs.case_ids:
        raise ConfigError(
            f"--against: no case is scored in both {ours_dir} (such as {min(ours.case_ids)}) and {theirs_dir} "
            f"(such as {min(theirs.case_ids)})"
        )
    found = compare_against(ours, theirs)
    path = against_path(out or ours_dir)
    storage.write_table(path, AGAINST, found.table, predictions=ours_dir, against=theirs_dir, notes=[*found.notes])
    return replace(found, notes=[*found.notes, f"table    {path}"])


def _find(option: str, path: str) -> str:
    if folder := scored_folder(path):
        return folder
    raise ConfigError(
        f"{option}: {path} has no metrics/cases.parquet, nor has its test/; name a run, the --out of predict.py or "
        "that of evaluate.py"
    )


def _read(option: str, folder: str) -> Scored:
    """The scores of a folder. Raises ConfigError where none of its cases has any."""
    cases = read_case_metrics(folder)
    if cases.empty:
        raise ConfigError(f"{option}: no case of {folder} has a reference, so there are no scores to compare")
    try:
        notebook = storage.read_table(metrics_path(folder, "notebook"), NOTEBOOK).to_pandas()
    except FileNotFoundError:
        notebook = NOTEBOOK.table([]).to_pandas()
    return Scored(name=folder, cases=cases, notebook=notebook)
