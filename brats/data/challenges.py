"""Challenges: which codings a case may have, by the challenge and year that its id names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from brats.config import RulesName
from brats.data.codings import (
    BRATS_2018,
    BRATS_2023,
    BRATS_2023_PED,
    BRATS_2024_GLI,
    BRATS_2024_PED,
    BRATS_2025_MET,
    CODINGS,
    Coding,
)
from brats.data.layouts import SINCE_2018, SINCE_2023, Layout
from brats.errors import CaseError

AUTO = "auto"
"""The value of `--coding` that leaves the choice to the names."""


# Where an id says BraTS, as a word of its own, up to a later word, between separators.
_BRATS = r"(?<![a-z0-9])BraTS(?![a-z]).*[-_.]"
_END = r"(?=[-_.]|$)"
_PED = r"PEDS?(?![a-z])"
_EDITION = r"(?<![a-z0-9])BraTS[-_]?(20)?{}[-_]?"


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """What ids of one challenge have in common.

    name:     for messages
    ids:      what its ids hold, a regular expression
    own_ids:  what ids of one's own hold that are of it too, where the files are named as it names them; "" for none
    layout:   how it names the files of a case
    codings:  those it has used under such ids, the usual one first; none where no region can be made of its labels
    settled:  whether the first coding may be taken without asking: another one only adds a code to it
    rules:    by which BraTS 2023 scores its lesions; None where that code has none for it
    """

    name: str
    ids: str
    own_ids: str = ""
    layout: Layout
    codings: tuple[Coding, ...]
    settled: bool = True
    rules: RulesName | None = None

    def holds(self, case_id: str, layout: Layout) -> bool:
        """Whether a case of this id, whose files are named so, is of the challenge."""
        if re.search(self.ids, case_id, re.IGNORECASE):
            return True
        own = self.own_ids and self.layout == layout
        return bool(own and re.search(self.own_ids, case_id, re.IGNORECASE))


CHALLENGES = (
    Challenge(
        name="BraTS-PED 2023",
        ids=_EDITION.format("23") + _PED,
        layout=SINCE_2023,
        codings=(BRATS_2023_PED,),
        rules="ped",
    ),
    Challenge(
        name="BraTS-PED from 2024 on",
        ids=_EDITION.format("(2[4-9]|[3-9][0-9])") + _PED,
        layout=SINCE_2023,
        codings=(BRATS_2024_PED,),
        rules="ped",
    ),
    Challenge(  # its codes mean other tissues from year to year, so that no id with that word passes in silence
        name="BraTS-PED",
        ids=rf"(?<![a-z0-9])BraTS(.*[^a-z])?{_PED}",
        own_ids=rf"(?<![a-z]){_PED}",
        layout=SINCE_2023,
        codings=(BRATS_2023_PED, BRATS_2024_PED),
        settled=False,
        rules="ped",
    ),
    Challenge(
        name="BraTS 2017 to 2021",
        ids=r"(?<![a-z0-9])BraTS(17|18|19|20|2021)[-_]",
        layout=SINCE_2018,
        codings=(BRATS_2018,),
        rules="gli",
    ),
    Challenge(  # visits are counted from 100 on, as in BraTS-GLI-00005-100
        name="BraTS-GLI after treatment",
        ids=rf"{_BRATS}GLI[-_]\d+[-_][1-9]\d\d(?!\d)",
        layout=SINCE_2023,
        codings=(BRATS_2024_GLI,),
        rules="gli",
    ),
    Challenge(
        name="BraTS-GLI",
        ids=rf"{_BRATS}GLI{_END}",
        layout=SINCE_2023,
        codings=(BRATS_2023, BRATS_2024_GLI),
        rules="gli",
    ),
    Challenge(
        name="BraTS-METS",
        ids=rf"{_BRATS}METS?{_END}",
        layout=SINCE_2023,
        codings=(BRATS_2023, BRATS_2025_MET),
        rules="met",
    ),
    Challenge(name="BraTS-MEN-RT", ids=rf"{_BRATS}MEN[-_]RT{_END}", layout=SINCE_2023, codings=()),
    Challenge(name="BraTS-MEN", ids=rf"{_BRATS}MEN{_END}", layout=SINCE_2023, codings=(BRATS_2023,), rules="men"),
    Challenge(name="BraTS-SSA", ids=rf"{_BRATS}SSA{_END}", layout=SINCE_2023, codings=(BRATS_2023,), rules="ssa"),
    Challenge(name="BraTS-GoAT", ids=rf"{_BRATS}GoAT{_END}", layout=SINCE_2023, codings=(BRATS_2023,)),
    Challenge(
        name="a challenge whose coding is not known",
        ids=r"(?<![a-z0-9])BraTS-[A-Z]+-",
        layout=SINCE_2023,
        codings=tuple(CODINGS.values()),
        settled=False,
    ),
)
"""The first one that holds a case is its challenge; letter case is no matter."""


def find_challenge(case_id: str, layout: Layout) -> Challenge | None:
    """The challenge that the id of a case names, whose files are named so; None for ids of one's own."""
    return next((challenge for challenge in CHALLENGES if challenge.holds(case_id, layout)), None)


def scoring_rules(case_id: str, layout: Layout, otherwise: RulesName) -> RulesName:
    """The challenge by whose rules the lesions of a case are scored: its own where its id names one that has them.

    otherwise: `--challenge-rules`
    """
    challenge = find_challenge(case_id, layout)
    return (challenge and challenge.rules) or otherwise


def possible_codings(case_id: str, layout: Layout) -> tuple[list[Coding], bool]:
    """The codings that a case may have, by its id and the naming of its files, and whether the first is certain.

    An id of one's own says nothing: the naming of the files decides, and any coding may be asked for, unless the
    names are of one set of cases. Names of files that people of all codings use say nothing either. An
    id of one era on files named as in the other contradicts itself, so that neither is certain.
    """
    challenge = find_challenge(case_id, layout)
    if challenge is None and layout.codings:
        return list(layout.codings), len(layout.codings) == 1
    if challenge is None:
        others = [coding for coding in CODINGS.values() if coding != layout.coding]
        return [layout.coding, *others], layout.is_coded
    codings = list(challenge.codings)
    if codings and challenge.layout != layout and layout.is_coded:
        return codings + [layout.coding] * (layout.coding not in codings), False
    return codings, challenge.settled


def usual_coding(case_id: str, layout: Layout, *, labelled: bool) -> Coding | None:
    """The coding of a case for which none is asked for; None where it has to be.

    labelled: whether it has a segmentation. Without one the coding is that of masks to be written alone, and does
              not have to be certain where no challenge is named.
    """
    possible, certain = possible_codings(case_id, layout)
    is_enough = certain or (not labelled and find_challenge(case_id, layout) is None)
    return possible[0] if possible and is_enough else None


def choose_coding(case_id: str, layout: Layout, wanted: str = AUTO, *, labelled: bool = True) -> Coding:
    """The coding of a case.

    wanted:   `--coding`. It is that of every case that may have it; others keep the one that their name settles.
    labelled: whether it has a segmentation

    Raises CaseError where the name leaves more than one open and none of them is wanted.
    """
    possible, _ = possible_codings(case_id, layout)
    if not possible:
        raise CaseError(
            "",
            "a case of BraTS-MEN-RT has one label, the target volume of the radiotherapy, of which no WT, TC or ET "
            "can be made; leave it out",
        )
    for coding in possible:
        if coding.name == wanted:
            return coding
    usual = usual_coding(case_id, layout, labelled=labelled)
    if usual is None:
        raise CaseError("", _open_reason(case_id, layout, possible))
    return usual


def _open_reason(case_id: str, layout: Layout, possible: Sequence[Coding]) -> str:
    """Why the name of a case does not settle its coding, and what to add to the command."""
    challenge = find_challenge(case_id, layout)
    options = " or ".join(f"--coding {coding.name} ({coding.meaning})" for coding in possible)
    if challenge is None and layout.codings:
        return f"segmentations named as {layout.example} have had {len(possible)} codings; add {options}"
    if challenge is None:
        return f"neither its id nor the names of its files say how its segmentation is coded; add {options}"
    if len(possible) == len(CODINGS):
        return f"its id is of {challenge.name}; add {options}"
    if challenge.layout != layout:
        return f"its id is of {challenge.name}, but its files are named as {layout.example}; add {options}"
    return f"ids of {challenge.name} have had {len(possible)} codings; add {options}"
