"""The cases of a report, read from the prepared dataset or the case folders that were predicted, and packed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from brats import storage
from brats.config import MODALITIES, PredictConfig
from brats.data.case import Case
from brats.data.cases import Hdf5Options, find_cases
from brats.data.dataset import is_prepared, slices_path
from brats.data.items import read_source
from brats.data.slices import SliceFile
from brats.errors import BratsError, CaseError, StorageError
from brats.report.case_list import worst_first
from brats.report.figures import choose_cases
from brats.report.findings import Findings
from brats.report.gallery import Example
from brats.report.panels import error_panel, png_url, worst_slice
from brats.report.reliability import Calibration, calibration
from brats.report.viewer import ViewCase
from brats.report.volumes import pack, read_layers
from brats.saved_config import config_path

ReadCase = Callable[[str], Case]

FORM_OPTIONS = ("coding", "hdf5_channels", "hdf5_spacing_mm")  # of predict: how case folders are read
CARRIED_ROLES = ("worst", "median", "best")  # of the cases that a page carries, in this order
UNREADABLE = (FileNotFoundError, StorageError, CaseError)
"""What reading a case meets with whose files have gone, are damaged, or are not those that were predicted."""


@dataclass(frozen=True, kw_only=True)
class Viewed:
    """What reading one case gave: its entry of the viewer, a slice of it where it has a role, and its counts."""

    case: ViewCase
    example: Example | None
    calibration: Calibration


def roles(found: Findings) -> dict[str, str]:
    """The worst, the median and the best case by role, of those whose masks are there."""
    cases = found.case_table
    chosen = choose_cases(cases[cases["case_id"].isin(found.predictions)]) if len(cases) else {}
    return {role: chosen[role] for role in CARRIED_ROLES if role in chosen}


def viewing_order(found: Findings) -> list[str]:
    """The predicted cases: those with a role, the other scored ones from the worst on, then those without scores.

    Without any scores the first of the ids take the places of those with a role.
    """
    scored = worst_first(found.case_table) if len(found.case_table) else []
    wanted = [*roles(found).values(), *scored, *sorted(found.predictions)]
    return [case_id for case_id in dict.fromkeys(wanted) if case_id in found.predictions]


def case_reader(found: Findings) -> ReadCase:
    """What reads a case by its id.

    Raises BratsError where nothing says what was predicted, or where its folder has gone.
    """
    if not found.data:
        raise BratsError("nothing beside the results names the cases that were predicted (no config.json)")
    if found.split or is_prepared(found.data):
        modalities = _modalities(found)
        return lambda case_id: SliceFile(slices_path(found.data, case_id)).read_case(modalities)
    modalities = _modalities(found) or list(MODALITIES)
    config = PredictConfig(
        model=found.folder,
        data=found.data,
        out=found.folder,
        **{name: _value(found.config[name]) for name in FORM_OPTIONS if name in found.config},
    )
    cases = find_cases(found.data, modalities, config.coding, Hdf5Options.of(config)).cases
    sources = {files.case_id: files for files in cases}

    def read(case_id: str) -> Case:
        if case_id not in sources:
            raise CaseError(found.data, "its files have gone")
        return read_source(sources[case_id], modalities)

    return read


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _modalities(found: Findings) -> list[str] | None:
    """Those that the model has seen, in its order; None where nothing says which."""
    if modalities := found.config.get("modalities"):
        return list(modalities)
    path = config_path(str(found.config.get("model", "")))
    known = storage.read_json(path).get("result", {}) if storage.exists(path) else {}
    return list(known["modalities"]) if "modalities" in known else None


def view_case(found: Findings, read: ReadCase, case_id: str, role: str) -> Viewed | str:
    """A case for the viewer; why it cannot be shown, worded to follow its id, where its files have gone.

    role: of `roles`; "" for the others
    """
    try:
        layers = read_layers(read(case_id), found.predictions[case_id])
    except UNREADABLE as error:
        return f"not in the viewer: {error}"
    packed = pack(layers)
    of_case = found.case_table[found.case_table["case_id"] == case_id]["dice"].mean()
    dice = None if pd.isna(of_case) else float(of_case)
    case = ViewCase(case_id=case_id, role=role, dice=dice, n_bytes=len(packed), packed=packed)
    example = None
    if role:
        index, shown = worst_slice(layers)
        example = Example(
            role=role,
            case_id=case_id,
            title=replace(case, role="").title,
            slice_index=layers.case.box.start[2] + index,
            panel=png_url(error_panel(shown)),
        )
    return Viewed(case=case, example=example, calibration=calibration(layers))


def without_file(viewed: Viewed) -> Viewed:
    """The same once its file was written: it takes no memory any more."""
    return replace(viewed, case=replace(viewed.case, packed=None))


def with_figures(examples: Mapping[str, Example], figures: Mapping[str, str]) -> dict[str, Example]:
    """Examples with the pictures of their cases in all modalities, data: URLs by role."""
    return {role: replace(example, figure=figures.get(role, "")) for role, example in examples.items()}
