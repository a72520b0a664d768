"""Pictures of a run, drawn from the files that it wrote."""

from brats import storage
from brats.config import ReportConfig
from brats.data.run_split import read_prepared, test_dir
from brats.errors import ConfigError
from brats.model.history import history_path
from brats.score.tables import metrics_path


def report(config: ReportConfig) -> list[str]:
    """Draw what the run has: its learning curves and, where the test split was predicted, its cases and scores.

    Returns the paths of the pictures. Raises ConfigError for a folder that is not a run.
    """
    from brats.model.bundle import bundle_dir
    from brats.model.ensemble import is_ensemble
    from brats.report.figures import draw_cases, draw_distributions, draw_learning_curves, figures_dir

    run = config.run
    figures = config.out or figures_dir(run)
    pictures = []
    if storage.exists(history_path(run)):
        pictures.append(draw_learning_curves(run, figures))
    elif not is_ensemble(bundle_dir(run)):  # whose runs have the curves
        raise ConfigError(f"--run: {run} has no history.parquet; give the --out of a finished train.py")
    predictions = test_dir(run)
    if storage.exists(metrics_path(run, "cases")):  # a cross-validation, whose folds have the masks
        distributions = draw_distributions(run, figures)
        pictures += [distributions] if distributions else []
    elif storage.exists(metrics_path(predictions, "cases")):
        prepared = read_prepared(run)
        try:
            pictures += draw_cases(predictions, figures, prepared)
        except FileNotFoundError as error:
            raise ConfigError(f"{prepared}: the prepared cases of {run} are gone ({error})") from error
        distributions = draw_distributions(predictions, figures)
        pictures += [distributions] if distributions else []
    return pictures
