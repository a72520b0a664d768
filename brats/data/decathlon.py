"""The description `dataset.json` of the Medical Segmentation Decathlon: which file is what, of Task01 alone.

It states the order of the channels of its 4-D images and the codes of its labels, neither of which their names say.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from brats import storage
from brats.data.layouts import MSD_TASK01_FILES, SEGMENTATION, Match
from brats.data.rejects import Reject
from brats.errors import StorageError
from brats.storage import FileInfo

FILE_NAME = "dataset.json"
MODALITIES = {"FLAIR": "flair", "T1W": "t1", "T1GD": "t1ce", "T2W": "t2"}
"""By the names of Task01, in capitals."""
LABELS = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}

_TASK = "Task01_BrainTumour of the Medical Segmentation Decathlon"
_NIFTI_NAME = re.compile(r"(?:[ -~]*/)?([!-.0-~]+?)\.nii(?:\.gz)?", re.IGNORECASE)
_LISTS = ("training", "test")  # of the files of labelled cases, and of others


class Descriptions(NamedTuple):
    """What the descriptions below a folder say.

    matches: by path, the files that they name
    rejects: the cases of which a file that they name is not there
    notes:   descriptions that are not used, a line each
    """

    matches: dict[str, Match]
    rejects: list[Reject]
    notes: list[str]


class _Entry(NamedTuple):
    """A case as a description has it: its files, relative to the description."""

    image: str
    label: str | None


def read_descriptions(files: Sequence[FileInfo]) -> Descriptions:
    """Read every dataset.json among the files. One that is not of Task01, or cannot be read, is noted."""
    found = Descriptions({}, [], [])
    here = {file.path for file in files}
    for file in files:
        if file.name != FILE_NAME:
            continue
        try:
            kind, entries = _parse(file)
        except (StorageError, FileNotFoundError, ValueError) as error:
            reason = str(error).removeprefix(f"{file.path}: ")
            found.notes.append(f"{file.path}: {reason}; what it describes is not read")
            continue
        for entry in entries:
            _take(found, file, kind, entry, here)
    return found


def _take(found: Descriptions, description: FileInfo, kind: str, entry: _Entry, here: set[str]) -> None:
    """Add the files of a case, or its reject where one of them is not there."""
    folder = description.path.rsplit("/", 1)[0]
    name = _NIFTI_NAME.fullmatch(entry.image)
    case_id = name[1] if name else _escaped(entry.image)
    own = {kind: entry.image, **({SEGMENTATION: entry.label} if entry.label else {})}
    paths = {each: storage.join(folder, path.removeprefix("./")) for each, path in own.items()}
    missing = [_escaped(own[each]) for each, path in paths.items() if path not in here]
    if missing:
        reason = f"{FILE_NAME} names {' and '.join(missing)}, which {'are' if missing[1:] else 'is'} not there"
        found.rejects.append(Reject(case_id=case_id, path=description.path, stage="find", reason=reason))
        return
    for each, path in paths.items():
        found.matches[path] = Match(MSD_TASK01_FILES, case_id, each)


def _parse(file: FileInfo) -> tuple[str, list[_Entry]]:
    """The modalities of the channels, joined by "+", and the cases. Raises ValueError for another task."""
    try:
        value = json.loads(storage.read_bytes(file.path))
    except (ValueError, RecursionError) as error:  # bytes that are no text are a ValueError too
        raise ValueError(f"not JSON ({error})".replace("\n", " ")) from None
    if not isinstance(value, dict):
        raise ValueError("not an object of JSON")
    kind = _channels(value)
    if value.get("labels") != LABELS:
        raise ValueError(f"its labels are {_short(value.get('labels'))}; {_TASK} has {_short(LABELS)}")
    return kind, [_entry(each) for name in _LISTS for each in _list(value, name)]


def _channels(value: Mapping[str, Any]) -> str:
    """The modality of each channel, in their order."""
    stated = value.get("modality")
    names = [str(stated.get(str(channel), "")).upper() for channel in range(4)] if isinstance(stated, dict) else []
    if sorted(names) != sorted(MODALITIES) or len(stated or ()) != len(MODALITIES):
        raise ValueError(f"its modality is {_short(stated)}; {_TASK} has FLAIR, T1w, t1gd and T2w")
    return "+".join(MODALITIES[name] for name in names)


def _list(value: Mapping[str, Any], name: str) -> list[Any]:
    entries = value.get(name, [])
    if not isinstance(entries, list):
        raise ValueError(f"its {name} is no list")
    return entries


def _entry(value: Any) -> _Entry:
    """A labelled case, {"image": ..., "label": ...}, or the image of another one."""
    image, label = (value.get("image"), value.get("label")) if isinstance(value, dict) else (value, None)
    if not isinstance(image, str) or not (label is None or isinstance(label, str)):
        raise ValueError(f"an entry names no files: {_short(value)}")
    return _Entry(image, label)


def _escaped(text: str) -> str:
    """A text in one line of printable characters."""
    return json.dumps(text)[1:-1]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
