"""Small files of the other kinds that are read, mutated: JSON documents, tables of names, weights, Parquet."""

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.fuzzing import Choices

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 10**30, 1e308, -0.5, float("nan"), float("inf"), "", "x", "../x",
    "line\nbreak", "\u00e9", "\ud800", [], [1], [None], ["flair"], [[]], {}, {"x": 1}, [10**9] * 5, [0.5, 0.5, 2],
)  # fmt: skip
_ROWS: tuple[str, ...] = (
    "", ",", ",,,,,,", "HGG", "lgg,x", '"', '"a""b",c', "HGG;BraTS20_Training_002", "\ufeffGrade", "Grade", "\x00",
    "LGG,NA,NA,NA,BraTS20_Training_001", "HGG,a,b,c,d,e,f,g,h", "\r", "Grade,BraTS_2020_subject_ID", "\t\t",
)  # fmt: skip


def mutated_bytes(content: bytes, choose: Choices) -> bytes:
    """Up to three bytes changed, removed or inserted, and sometimes the end cut off."""
    changed = bytearray(content)
    for _ in range(1 + choose(3)):
        position = choose(len(changed) + 1)
        match choose(4):
            case 0:
                changed[position : position + 1] = bytes([choose(256)])
            case 1:
                del changed[position : position + 1 + choose(8)]
            case 2:
                changed[position:position] = bytes([choose(256)]) * (1 + choose(8))
            case 3:
                changed[position : position + 4] = choose(2**32).to_bytes(4, "little")
    return bytes(changed[: choose(len(changed) + 1)] if choose(8) == 7 else changed)


def mutated_json(document: Mapping[str, Any], choose: Choices) -> bytes:
    """A JSON document with one to three values replaced, removed or added anywhere, or its bytes changed."""
    changed = json.loads(json.dumps(document))
    for _ in range(1 + choose(3)):
        changed = _mutated_value(changed, choose)
    content = json.dumps(changed).encode()
    return mutated_bytes(content, choose) if choose(4) == 3 else content


def _mutated_value(value: Any, choose: Choices) -> Any:
    if isinstance(value, dict) and value and choose(6):
        key = list(value)[choose(len(value))]
        match choose(8):
            case 0:
                return {name: item for name, item in value.items() if name != key}
            case 1:
                return {**value, "unknown": _VALUES[choose(len(_VALUES))]}
            case _:
                return {**value, key: _mutated_value(value[key], choose)}
    if isinstance(value, list) and value and choose(4):
        index = choose(len(value))
        return [*value[:index], _mutated_value(value[index], choose), *value[index + 1 :]]
    return _VALUES[choose(len(_VALUES))]


def mutated_table(lines: list[str], choose: Choices) -> bytes:
    """A table of text with rows replaced or added, in one of several encodings and line ends, or bytes changed."""
    changed = list(lines)
    for _ in range(choose(4)):
        position = choose(len(changed) + 1)
        changed[position : position + choose(2)] = [_ROWS[choose(len(_ROWS))]]
    text = ("\n", "\r\n", "\r")[choose(3)].join(changed)
    text = text.replace(",", (",", ";", "\t")[choose(3)])
    content = text.encode(("utf-8", "utf-8-sig", "utf-16", "latin-1")[choose(4)], "replace")
    return mutated_bytes(content, choose) if choose(2) else content


def mutated_weights(content: bytes, choose: Choices) -> bytes:
    """A safetensors file whose header, or its length, or whose bytes were changed."""
    (size,) = struct.unpack_from("<Q", content)
    header, numbers = json.loads(content[8 : 8 + size]), content[8 + size :]
    match choose(4):
        case 0:
            return mutated_bytes(content, choose)
        case 1:
            return struct.pack("<Q", choose(2**32) * (2**32 if choose(2) else 1)) + content[8:]
        case _:
            changed = mutated_json(header, choose)
            return struct.pack("<Q", len(changed)) + changed + numbers


def outcome(read: Callable[[], object], expected: type[Exception]) -> str:
    """What is wrong with how a file was read: "" for a result, or for an expected error in one line."""
    try:
        read()
    except expected as error:
        return f"not one line: {error}" if "\n" in str(error) or not str(error) else ""
    return ""
