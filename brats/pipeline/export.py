"""Export of a model as graphs and a card, and of predictions as a submission or as probability maps."""

from collections.abc import Callable, Iterator, Mapping

from brats import storage
from brats.config import ExportConfig
from brats.console import some
from brats.data.cases import find_cases
from brats.data.probability_maps import AGAIN, find_grids, has_probabilities, probability_maps
from brats.data.rejects import Reject
from brats.data.submission import archive, doubled_scans, find_masks, read_mask
from brats.errors import BratsError, CaseError, ConfigError
from brats.score.parts import Part, read_parts
from brats.storage import FileInfo

CARD_FILE = "README.md"
MAPS_DIR = "probabilities"  # of an archive


def export(config: ExportConfig) -> list[str]:
    """Write what is asked for; return a line for each file and each case that is missing.

    Raises ConfigError where there is nothing to export or a package is missing, BundleError for a model that cannot
    be used, and BratsError where no mask can be submitted or, with `strict`, one is missing.
    """
    lines = []
    if config.model:
        lines += export_model(config, config.model)
    if config.predictions:
        lines += export_predictions(config, config.predictions)
    return lines


def export_model(config: ExportConfig, model: str) -> list[str]:
    """Write the files of a model, or of each of the networks that it averages in a folder of its own."""
    from brats.model.bundle import find_bundle
    from brats.model.ensemble import bundles_of, is_ensemble
    from brats.model.formats import check_onnx_installed
    from brats.report.model_card import model_card

    if "onnx" in config.formats:
        check_onnx_installed()  # before the work on other formats
    bundle = find_bundle(model)
    lines = []
    if "card" in config.formats:
        path = storage.join(config.out, CARD_FILE)
        storage.write_bytes(path, model_card(bundle, model).encode())
        lines.append(path)
    for folder in bundles_of(bundle):
        out = storage.join(config.out, folder.rpartition("/")[2]) if is_ensemble(bundle) else config.out
        lines += _export_graph(config, folder, out)
    return lines


def _export_graph(config: ExportConfig, bundle: str, out: str) -> list[str]:
    """Write the graph of one network in the formats that hold one; a line for each file."""
    from brats.model.formats import to_onnx, to_torch
    from brats.model.portable import Captured, capture

    writers: Mapping[str, tuple[str, Callable[[Captured], tuple[bytes, float]]]] = {
        "onnx": ("model.onnx", to_onnx),
        "torch": ("model.pt2", to_torch),
    }
    formats = [name for name in config.formats if name in writers]
    if not formats:
        return []
    captured = capture(bundle)
    lines = []
    for name in formats:
        file, write = writers[name]
        content, difference = write(captured)
        path = storage.join(out, file)
        storage.write_bytes(path, content)
        lines.append(f"{path}  takes {captured.takes}; at most {difference:.1g} from PyTorch")
    return lines


def write_card(run: str) -> None:
    """Write the card of a run's model beside it, unless the one there says the same."""
    from brats.model.bundle import bundle_dir
    from brats.report.model_card import model_card

    path, content = storage.join(bundle_dir(run), CARD_FILE), model_card(bundle_dir(run), run).encode()
    if not storage.exists(path) or storage.read_bytes(path) != content:
        storage.write_bytes(path, content)


def export_predictions(config: ExportConfig, predictions: str) -> list[str]:
    """Write masks and probabilities as asked for; a line for what is written, and one for each case that is not."""
    parts = read_parts(predictions)
    if not parts:
        raise ConfigError(f"--predictions: {predictions} has no predicted cases; give an --out of predict.py")
    if config.probabilities and not has_probabilities(predictions):
        raise ConfigError(f"--predictions: {predictions} has no probabilities; {AGAIN.format('--probabilities')}")
    expected = {*parts, *(_case_ids(config.data) if config.data else ())}
    write = write_submission if config.out.endswith(".zip") else write_probability_maps
    line, faults = write(config, predictions, {case_id: parts.get(case_id) for case_id in sorted(expected)})
    lines = [line, *(f"missing  {fault}" for fault in faults)]
    if config.strict and faults:
        print("\n".join(lines), flush=True)
        raise BratsError(f"{len(faults)} cases are missing from {config.out} (--strict); the first: {faults[0]}")
    return lines


def write_submission(
    config: ExportConfig, predictions: str, parts: Mapping[str, Part | None]
) -> tuple[str, list[Reject]]:
    """Write the masks that a challenge takes into one archive; a line for it, and why the others are not there.

    parts: by case id; None for a case that is not among the predictions
    """
    masks = find_masks(predictions)
    if not masks:
        raise ConfigError(f"--predictions: {predictions} has no NIfTI masks; {AGAIN.format('--nifti')}")
    taken: dict[str, bytes] = {}
    faults: list[Reject] = []
    for case_id, part in parts.items():
        try:
            taken[case_id] = _mask_of(case_id, part, masks.get(case_id))
        except CaseError as error:
            faults.append(Reject.from_error(case_id, "find", error))
    if doubled := doubled_scans(taken):
        raise ConfigError(
            f"--predictions: {some(sorted(doubled))} have equal patients and visits, which a challenge takes for "
            "one case; predict the cases of each challenge into a folder of its own"
        )
    if not taken:
        raise BratsError(f"{predictions}: no mask can be submitted; the first of {len(faults)}: {faults[0]}")
    maps = (
        _maps(predictions, {case_id: parts[case_id] for case_id in taken}, faults) if config.probabilities else ()
    )
    content = archive(taken, ((f"{MAPS_DIR}/{name}", file) for name, file in maps))
    storage.write_bytes(config.out, content)
    return f"{config.out}  {len(taken)} masks", faults


def write_probability_maps(
    config: ExportConfig, predictions: str, parts: Mapping[str, Part | None]
) -> tuple[str, list[Reject]]:
    """Write the probabilities of every case as NIfTI; a line for their folder, and why the others are not there."""
    faults: list[Reject] = []
    n_files = 0
    for name, file in _maps(predictions, parts, faults):
        storage.write_bytes(storage.join(config.out, name), file)
        n_files += 1
    if not n_files:
        raise BratsError(f"{predictions}: no probabilities to write; the first of {len(faults)}: {faults[0]}")
    return f"{config.out}  {n_files} files of {len(parts) - len(faults)} cases", faults


def _maps(predictions: str, parts: Mapping[str, Part | None], faults: list[Reject]) -> Iterator[tuple[str, bytes]]:
    """The NIfTI files of the probabilities of these cases, one after the other, by their names.

    faults: gets those that have none
    """
    grids = find_grids(predictions)
    for case_id, part in parts.items():
        try:
            _check_predicted(part)
            yield from probability_maps(predictions, case_id, grids.get(case_id)).items()
        except CaseError as error:
            faults.append(Reject.from_error(case_id, "find", error))


def _case_ids(data: str) -> list[str]:
    """The ids of all cases below a folder, usable or not, none of which needs every modality."""
    found = find_cases(data, ())
    return [*(case.case_id for case in found.cases), *(reject.case_id for reject in found.rejects)]


def _mask_of(case_id: str, part: Part | None, mask: FileInfo | None) -> bytes:
    """The mask of a case. Raises CaseError where there is none, or none that a challenge takes."""
    predicted = _check_predicted(part)
    if mask is None:
        raise CaseError("", "it has no NIfTI mask; run predict.py again with --nifti and the same --out")
    return read_mask(mask, case_id, predicted.coding)


def _check_predicted(part: Part | None) -> Part:
    """The result of a case. Raises CaseError where there is none, and for a case that was rejected."""
    if part is None:
        raise CaseError("", "it is not among the predictions; predict all cases of --data into one folder")
    if part.reject:
        raise CaseError(part.reject.path, part.reject.reason)
    return part
