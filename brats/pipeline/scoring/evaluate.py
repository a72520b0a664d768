"""Score masks of any origin, or those of a finished prediction, against the references of their cases."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from brats.cluster.datasets import from_cases, run_cases
from brats.cluster.owned import Ownership, owned
from brats.cluster.per_case import file_to_file
from brats.config import RulesName
from brats.console import say
from brats.data.cases import Hdf5Options, count_codings
from brats.data.challenges import scoring_rules
from brats.data.codings import CODINGS, Coding
from brats.data.grid import check_same_grid, from_ras, turn_alike
from brats.data.layouts import LAYOUTS
from brats.data.pairs import FoundPairs, Pair, find_pairs
from brats.data.prediction_coding import RAW
from brats.data.read_files import read_reference
from brats.data.rejects import Reject, check_rejects
from brats.data.volume import Segmentation, read_segmentation
from brats.errors import CaseError, UnknownLabelError
from brats.labels import Labels
from brats.pipeline.scoring.check import Evaluation, MaskEvaluation, PredictionEvaluation
from brats.pipeline.scoring.rescore import rescore
from brats.saved_config import SavedConfig
from brats.score.label_orders import CodeCounts, best_order, count_codes, order_warnings
from brats.score.parts import Part, check_parts, write_part
from brats.score.results import Results, write_results
from brats.score.tables import score_rows
from brats.storage import FileInfo


def evaluate(evaluation: Evaluation) -> Results:
    """Score every case that has both a reference and a prediction; then rebuild the tables.

    A folder of `predict` is scored by `rescore`. Of other folders a reference without a prediction is a reject:
    leaving it out silently would flatter the means.

    Raises ConfigError for predictions that cannot be told apart, when none has a reference, and when another job is
    at work in `evaluation.out`.
    """
    if isinstance(evaluation, PredictionEvaluation):
        return rescore(evaluation)
    config = evaluation.config
    hdf5 = Hdf5Options(spacing_hwz_mm=config.hdf5_spacing_mm)
    found = find_pairs(config.predictions, evaluation.references, config.coding, hdf5)
    with owned(evaluation.out, "evaluate") as ownership:
        return _evaluate(evaluation, found, ownership)


def _evaluate(evaluation: MaskEvaluation, found: FoundPairs, ownership: Ownership) -> Results:
    config, coding, out = evaluation.config, evaluation.coding, evaluation.out
    check_parts(out)
    SavedConfig.of("evaluate", config).claim(out)
    say("evaluate", f"{len(found.pairs)} cases")
    say("evaluate", describe_codings(found.pairs, coding))
    for note in found.notes:
        say("evaluate", note)
    by_id = {pair.case.case_id: pair for pair in found.pairs}
    # All of them, each time: masks of equal size may differ.
    _score_pairs(by_id, out, coding, config.challenge_rules)
    ownership.check()
    results = write_results(out, by_id.keys(), found.rejects, config=asdict(config))
    own = {name: CODINGS[by_id[name].case.coding] for name in results.code_counts}
    stated = dict.fromkeys(own, coding) if coding else own
    doubts = [*found.warnings(), *order_warnings(results.code_counts, stated, own)]
    results = dataclasses.replace(results, doubts=doubts)
    check_rejects(results, strict=config.strict)
    return results


def describe_codings(pairs: Sequence[Pair], coding: Coding | None) -> str:
    """The line that says how references and predictions are read."""
    own = count_codings(pair.case.coding for pair in pairs)
    stated = f"in --prediction-coding {coding.name} ({coding.meaning})" if coding else "as the reference of each"
    return f"references in coding {own}; predictions {stated}"


def _score_pairs(pairs: Mapping[str, Pair], out: str, coding: Coding | None, challenge_rules: RulesName) -> None:
    """Score every pair on the cluster. The step writes its part; the driver that of a reject."""

    def take(case_id: str, outcome: Any) -> None:
        if isinstance(outcome, Reject):
            write_part(out, Part(case_id=case_id, reject=outcome))

    step = functools.partial(score_pair, out=out, coding=coding, challenge_rules=challenge_rules)
    dataset = file_to_file(from_cases(pairs), step, doing="scoring")
    run_cases(dataset, "evaluate", len(pairs), take)


def score_pair(pair: Pair, out: str, coding: Coding | None = None, challenge_rules: RulesName = "gli") -> None:
    """Step: score one prediction and write its part."""
    write_part(out, score(pair, coding, challenge_rules))


def score(pair: Pair, coding: Coding | None = None, challenge_rules: RulesName = "gli") -> Part:
    """The metric rows of a pair, and the counts that tell the order of its codes.

    coding: of the prediction; that of the case's own segmentation unless given
    challenge_rules: `--challenge-rules`

    Raises CaseError when a file cannot be read, or the two do not fit together.
    """
    case = pair.case
    coding = coding or CODINGS[case.coding]
    found, foreign = read_reference(case), _read_codes(pair.prediction, coding)
    reference, grid = found.labels, found.grid
    codes, predicted_grid = turn_alike(foreign.labels, foreign.grid, grid)
    check_same_grid(pair.reference, grid, pair.prediction, predicted_grid)
    code_counts = count_codes(reference, codes)
    predicted = _decode(pair.prediction, codes, coding, code_counts)
    rows: dict[str, Any] = score_rows(
        case_id=case.case_id,
        patient_id=case.patient_id,
        split=None,
        reference=np.moveaxis(from_ras(reference, grid), 2, 0),
        predicted=np.moveaxis(from_ras(predicted, grid), 2, 0),
        spacing_shw_mm=grid.spacing_shw_mm,
        n_outside=0,
        first_slice=0,
        rules=scoring_rules(case.case_id, LAYOUTS[case.layout], challenge_rules),
    )
    warnings = [*found.warnings(pair.reference), *foreign.warnings(pair.prediction), *case.notes]
    return Part(case_id=case.case_id, code_counts=code_counts, warnings=warnings, **rows)


def _read_codes(file: FileInfo, coding: Coding) -> Segmentation:
    """A prediction with the codes as they stand in the file, whether or not its coding defines them."""
    try:
        return read_segmentation(file, RAW)
    except CaseError as error:
        if not error.transient:
            read_segmentation(file, coding)  # fails too, in the words of that coding
        raise


def _decode(file: FileInfo, codes: Labels, coding: Coding, counts: CodeCounts) -> Labels:
    """The labels of a prediction. Raises CaseError that names the option for codes of another coding."""
    try:
        return dataclasses.replace(coding, remedies={}).decode(codes)  # its remedies are for references
    except UnknownLabelError as error:
        advice = "--prediction-coding states how the predictions are coded"
        if best := best_order(counts):
            reading, dice = best
            advice = (
                f"read as {reading} it would score a mean Dice of {dice:.2f}; if that is its order, add "
                f"--prediction-coding {reading.option}, with another --out"
            )
        raise CaseError(file.path, f"{error}; {advice}") from error
