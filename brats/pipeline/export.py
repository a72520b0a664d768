"""Ways out: a model as graphs and a card, and predicted masks as a submission to a challenge."""

from collections.abc import Callable, Mapping

from brats import storage
from brats.config import ExportConfig
from brats.console import some
from brats.data.cases import find_cases
from brats.data.rejects import Reject
from brats.data.submission import archive, doubled_scans, find_masks, read_mask
from brats.errors import BratsError, CaseError, ConfigError
from brats.score.parts import Part, read_parts
from brats.storage import FileInfo

CARD_FILE = "README.md"


def export(config: ExportConfig) -> list[str]:
    """Write what is asked for; return a line for each file and each case that is missing.

    Raises ConfigError where there is nothing to export or a package is missing, BundleError for a model that cannot
    be used, and BratsError where no mask can be submitted or, with `strict`, one is missing.
    """
    return export_model(config, config.model) if config.model else export_masks(config, config.predictions or "")


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


def export_masks(config: ExportConfig, predictions: str) -> list[str]:
    """Write the masks that a challenge takes into one archive; a line for it, and one for each other case."""
    parts = read_parts(predictions)
    masks = find_masks(predictions)
    if not parts:
        raise ConfigError(f"--predictions: {predictions} has no predicted cases; give an --out of predict.py")
    if not masks:
        raise ConfigError(
            f"--predictions: {predictions} has no NIfTI masks; run predict.py again with --nifti and the same "
            "--out, which adds them"
        )
    expected = {*parts, *(_case_ids(config.data) if config.data else ())}
    taken: dict[str, bytes] = {}
    faults: list[Reject] = []
    for case_id in sorted(expected):
        try:
            taken[case_id] = _mask_of(case_id, parts.get(case_id), masks.get(case_id))
        except CaseError as error:
            faults.append(Reject.from_error(case_id, "find", error))
    if doubled := doubled_scans(taken):
        raise ConfigError(
            f"--predictions: {some(sorted(doubled))} have equal patients and visits, which a challenge takes for "
            "one case; predict the cases of each challenge into a folder of its own"
        )
    if not taken:
        raise BratsError(f"{predictions}: no mask can be submitted; the first of {len(faults)}: {faults[0]}")
    storage.write_bytes(config.out, archive(taken))
    lines = [f"{config.out}  {len(taken)} masks", *(f"missing  {fault}" for fault in faults)]
    if config.strict and faults:
        print("\n".join(lines), flush=True)
        raise BratsError(f"{len(faults)} cases without a mask to submit (--strict); the first: {faults[0]}")
    return lines


def _case_ids(data: str) -> list[str]:
    """The ids of all cases below a folder, usable or not, none of which needs every modality."""
    found = find_cases(data, ())
    return [*(case.case_id for case in found.cases), *(reject.case_id for reject in found.rejects)]


def _mask_of(case_id: str, part: Part | None, mask: FileInfo | None) -> bytes:
    """The mask of a case. Raises CaseError where there is none, or none that a challenge takes."""
    if part is None:
        raise CaseError("", "it is not among the predictions; predict all cases of --data into one folder")
    if part.reject:
        raise CaseError(part.reject.path, part.reject.reason)
    if mask is None:
        raise CaseError("", "it has no NIfTI mask; run predict.py again with --nifti and the same --out")
    return read_mask(mask, case_id, part.coding)
