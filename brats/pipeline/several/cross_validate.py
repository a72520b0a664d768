"""Cross-validation: the run of each fold, the scores of all patients out of fold, and all models as one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from brats.config import ReportConfig, TrainConfig
from brats.console import say
from brats.data.cross_validation import choose_folds, folds_without_et, splits_of_folds
from brats.data.run_split import SplitRow, read_prepared, read_split, test_dir
from brats.errors import BratsError
from brats.pipeline.export import write_card
from brats.pipeline.report import report
from brats.pipeline.several import ensemble
from brats.pipeline.several.ensemble import average, begin, below, each, freeze_below, name_of
from brats.pipeline.train import TrainedRun, warn_at_first_start
from brats.score.parts import read_parts, write_part
from brats.score.results import Results, write_results


def folds_of(config: TrainConfig, prepared: str) -> list[TrainConfig]:
    """The run of each fold."""
    return [below(config, f"fold_{fold}", prepared) for fold in range(config.cross_validation or 0)]


def lay_out(config: TrainConfig) -> list[TrainConfig]:
    """Settle which cases each network of a run sees, and return the run of each."""
    from brats.model.bundle import read_card
    from brats.model.initial import initial_dir

    if config.cross_validation is None:
        return ensemble.lay_out(config)
    prepared, rows = begin(config, _choose)
    for fold in folds_without_et(rows, prepared):
        say(
            "train",
            f"WARNING: fold {fold} has no case with enhancing tumour: its Dice of ET says only whether some is "
            "found where there is none",
        )
    trained_on = read_card(initial_dir(config.out)).trained_on if config.init else {}
    leaves = []
    for run, split in zip(folds_of(config, prepared), splits_of_folds(rows, config, prepared), strict=True):
        warn_at_first_start(run.out, split, trained_on)
        freeze_below(run, split, prepared)
        leaves += ensemble.lay_out(run)
    return leaves


def _choose(config: TrainConfig, run: str, prepared: str) -> list[SplitRow]:
    rows = choose_folds(config, run, prepared)
    splits_of_folds(rows, config, prepared)  # refuses folds that leave too little before the run is claimed
    return rows


def finish(config: TrainConfig, failed: Mapping[str, BratsError]) -> TrainedRun:
    """Train and predict what is left of a run that was laid out; see `ensemble.finish`."""
    if config.cross_validation is None:
        return ensemble.finish(config, failed)
    folds = folds_of(config, read_prepared(config.out))
    runs = each(folds, lambda fold: ensemble.finish(fold, failed))
    average(config, {name_of(run.out): run.out for run in runs})
    scores = gather_scores(config, runs) if config.predict else None
    write_card(config.out)
    history = [row for run in runs for row in run.history]
    return TrainedRun(config.out, history, scores, report(ReportConfig(run=config.out)), runs)


def gather_scores(config: TrainConfig, runs: Sequence[TrainedRun]) -> Results:
    """Rebuild the metric tables of a cross-validation from the parts of the cases that each fold was tested on."""
    known, case_ids = read_parts(config.out), set()
    for run in runs:
        tested = {row["case_id"] for row in read_split(run.out) if row["split"] == "test"}
        for case_id, part in read_parts(test_dir(run.out)).items():
            if case_id in tested:
                case_ids.add(case_id)
                if known.get(case_id) != part:
                    write_part(config.out, part)
    return write_results(config.out, case_ids, [], config=asdict(config))
