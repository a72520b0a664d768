"""Codings of the masks of other programs: the values of `--prediction-coding`."""

import re

from brats.console import listed
from brats.data.codings import CODINGS, Coding
from brats.errors import ConfigError
from brats.labels import ED, ET, NCR, TISSUES

CASE = "case"
"""The value for masks that are coded as the segmentation of their own case."""

BACKGROUND = "BG"
"""What pairs call the background."""

# Medical Segmentation Decathlon, Task01_BrainTumour, dataset.json: 1 edema, 2 non-enhancing tumor, 3 enhancing
# tumour. The conversion scripts of nnU-Net write the same (Task043, Task082, Dataset137: 1 and 2 swapped, 4 to 3).
NNUNET = Coding(name="nnunet", meaning="1 ED, 2 NCR, 3 ET", codes={0: 0, 1: ED, 2: NCR, 3: ET})
_ALIASES = {"nnu-net": NNUNET, "decathlon": NNUNET}

RAW = Coding(name="raw", meaning="", codes={code: code for code in range(256)})
"""Codes as they stand in a file; decoding leaves them as they are."""

_TISSUES = {name.upper(): label for name, label in TISSUES.items()} | {BACKGROUND: 0}
_NAMES = {label: name for name, label in _TISSUES.items()}
_EXAMPLE = "1=ED,2=NCR,3=ET"


def known_codings() -> dict[str, Coding]:
    """Every coding that has a name, by that name; first the one that other programs use most."""
    return {NNUNET.name: NNUNET, **CODINGS}


def parse_prediction_coding(text: str) -> Coding | None:
    """The coding that a value of `--prediction-coding` names; None for that of each case's own segmentation.

    Raises ConfigError, one line, for a name that is unknown and for pairs that define no coding.
    """
    if "=" in text:
        return pairs_coding(text)
    name = text.strip().lower()
    if name == CASE:
        return None
    by_name = {known.lower(): coding for known, coding in known_codings().items()} | _ALIASES
    if name not in by_name:
        names = ", ".join([CASE, NNUNET.name, "decathlon", *CODINGS])
        raise ConfigError(f"--prediction-coding must be one of {names}, or pairs such as {_EXAMPLE}; not {text!r}")
    return by_name[name]


def pairs_coding(text: str) -> Coding:
    """The coding of pairs such as `1=ED,2=NCR,3=ET`, which spaces may part too; several codes may be one tissue."""
    codes = {0: 0}
    for pair in re.sub(r"\s*=\s*", "=", text).replace(",", " ").replace(";", " ").split():
        code, label = _parse_pair(pair)
        if code in codes and (code or label):
            raise ConfigError(
                f"--prediction-coding: code 0 is the background, not {_NAMES[label]}"
                if code == 0
                else f"--prediction-coding names code {code} twice, in {text!r}"
            )
        codes[code] = label
    if not any(codes.values()):
        raise ConfigError(f"--prediction-coding: no code for a tissue in {text!r}; an example is {_EXAMPLE}")
    pairs = [(code, _NAMES[label]) for code, label in sorted(codes.items()) if code]
    return Coding(
        name=",".join(f"{code}={tissue}" for code, tissue in pairs),
        meaning=", ".join(f"{code} {tissue}" for code, tissue in pairs),
        codes=codes,
    )


def _parse_pair(pair: str) -> tuple[int, int]:
    code, equals, tissue = pair.partition("=")
    if not equals:
        raise ConfigError(f"--prediction-coding: {pair!r} is no pair of a code and a tissue, such as 1=ED")
    if not re.fullmatch(r"[0-9]+", code) or int(code) not in RAW.codes:
        raise ConfigError(
            f"--prediction-coding: the code in {pair!r} must be a whole number from 0 to {max(RAW.codes)}"
        )
    if tissue.upper() not in _TISSUES:
        raise ConfigError(
            f"--prediction-coding: unknown tissue in {pair!r}; {listed(map(str.upper, TISSUES))} are tissues, and "
            f"{BACKGROUND} is the background"
        )
    return int(code), _TISSUES[tissue.upper()]
