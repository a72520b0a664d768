"""Challenges: which coding the id of a case settles, leaves open, or may be given."""

import pytest

from brats.config import RulesName
from brats.data.challenges import choose_coding, find_challenge, scoring_rules, usual_coding
from brats.data.layouts import LAYOUTS, SINCE_2018, SINCE_2023, Layout
from brats.errors import CaseError


@pytest.mark.parametrize(
    ("case_id", "layout", "coding"),
    [
        ("Brats17_CBICA_AAB_1", SINCE_2018, "brats2018"),
        ("BraTS20_Training_001", SINCE_2018, "brats2018"),
        ("BraTS2021_00006", SINCE_2018, "brats2018"),
        ("BraTS-GLI-00005-000", SINCE_2023, "brats2023"),
        ("BraTS-GLI-00005-001", SINCE_2023, "brats2023"),
        ("BraTS-GLI-00005-100", SINCE_2023, "brats2024-gli"),
        ("BraTS-GLI-02405-103", SINCE_2023, "brats2024-gli"),
        ("BraTS-SSA-00002-000", SINCE_2023, "brats2023"),
        ("BraTS-MEN-00004-000", SINCE_2023, "brats2023"),
        ("BraTS-MET-00001-000", SINCE_2023, "brats2023"),
        ("BraTS-GoAT-00000", SINCE_2023, "brats2023"),
        ("patient7", SINCE_2018, "brats2018"),
        ("patient7", SINCE_2023, "brats2023"),
    ],
)
def test_name_settles_the_coding(case_id: str, layout: Layout, coding: str) -> None:
    assert choose_coding(case_id, layout).name == coding


@pytest.mark.parametrize("case_id", ["BraTS-PED-00001-000", "brats-ped-1", "BraTS-PEDs-00001-000", "BraTS_PED_7"])
def test_paediatric_name_is_refused_with_both_codings(case_id: str) -> None:
    with pytest.raises(CaseError) as refused:
        choose_coding(case_id, SINCE_2023)
    assert refused.value.reason == (
        "ids of BraTS-PED have had 2 codings; add --coding brats2023-ped (1 NC, 2 ED, 3 ET) or "
        "--coding brats2024-ped (1 ET, 2 NET, 3 CC, 4 ED)"
    )


def test_paediatric_name_is_refused_with_a_coding_that_it_never_had() -> None:
    with pytest.raises(CaseError, match="ids of BraTS-PED have had 2 codings"):
        choose_coding("BraTS-PED-00001-000", SINCE_2023, "brats2023")


@pytest.mark.parametrize(
    ("case_id", "wanted"),
    [
        ("BraTS-PED-00001-000", "brats2023-ped"),
        ("BraTS-PED-00001-000", "brats2024-ped"),
        ("BraTS-MET-00001-000", "brats2025-met"),
        ("BraTS-GLI-00005-000", "brats2024-gli"),
        ("patient7", "brats2024-ped"),
        ("BraTS-XYZ-00001-000", "brats2023"),
    ],
)
def test_name_that_leaves_a_choice_has_the_coding_that_is_wanted(case_id: str, wanted: str) -> None:
    assert choose_coding(case_id, SINCE_2023, wanted).name == wanted


@pytest.mark.parametrize(
    ("case_id", "layout", "wanted", "kept"),
    [
        ("BraTS20_Training_001", SINCE_2018, "brats2024-ped", "brats2018"),
        ("BraTS-GLI-00005-000", SINCE_2023, "brats2024-ped", "brats2023"),
        ("BraTS-GLI-00005-100", SINCE_2023, "brats2023", "brats2024-gli"),
        ("BraTS-SSA-00002-000", SINCE_2023, "brats2025-met", "brats2023"),
    ],
)
def test_name_that_settles_its_coding_keeps_it(case_id: str, layout: Layout, wanted: str, kept: str) -> None:
    assert choose_coding(case_id, layout, wanted).name == kept


def test_name_of_an_unknown_challenge_is_refused() -> None:
    with pytest.raises(
        CaseError, match="its id is of a challenge whose coding is not known; add --coding brats2018"
    ):
        choose_coding("BraTS-XYZ-00001-000", SINCE_2023)


@pytest.mark.parametrize(
    ("case_id", "layout", "said"),
    [
        (
            "BraTS-GLI-00005-000",
            SINCE_2018,
            "its id is of BraTS-GLI, but its files are named as BraTS20_Training_001",
        ),
        (
            "BraTS20_Training_001",
            SINCE_2023,
            "its id is of BraTS 2017 to 2021, but its files are named as BraTS-GLI",
        ),
    ],
)
def test_id_and_files_of_two_eras_are_refused_unless_the_coding_is_given(
    case_id: str, layout: Layout, said: str
) -> None:
    with pytest.raises(CaseError, match=said):
        choose_coding(case_id, layout)
    for wanted in ("brats2018", "brats2023"):
        assert choose_coding(case_id, layout, wanted).name == wanted


@pytest.mark.parametrize("wanted", ["auto", "brats2023"])
def test_radiotherapy_case_is_refused_whatever_is_wanted(wanted: str) -> None:
    with pytest.raises(CaseError, match="BraTS-MEN-RT has one label"):
        choose_coding("BraTS-MEN-RT-0002-1", SINCE_2023, wanted)


@pytest.mark.parametrize("layout", [SINCE_2018, SINCE_2023])
@pytest.mark.parametrize(
    "case_id",
    [
        "case_1",
        "UPENN-GBM-00001_11",
        "hosp-MET-12",
        "sped-1",
        "PEDro-1",
        "hosp-GLI-00005-100",
        "MEN-RT-1",
        "myBraTS-MET-1",
    ],
)
def test_id_of_ones_own_is_of_no_challenge(case_id: str, layout: Layout) -> None:
    assert find_challenge(case_id, layout) is None


@pytest.mark.parametrize(
    "case_id",
    ["PED-00001-000", "hosp_PEDs_1", "ped.7", "PED007", "C-BraTS-PED-00001-000", "BraTSPED-1", "BraTS21-PED-1"],
)
def test_paediatric_word_anywhere_in_an_id_leaves_its_two_codings_open(case_id: str) -> None:
    with pytest.raises(CaseError, match=r"--coding brats2023-ped .* or --coding brats2024-ped "):
        choose_coding(case_id, SINCE_2023)
    assert choose_coding(case_id, SINCE_2023, "brats2024-ped").name == "brats2024-ped"


@pytest.mark.parametrize(
    ("case_id", "coding"),
    [
        ("BraTS2023-PED-00001-000", "brats2023-ped"),
        ("BraTS-2024-PED-1", "brats2024-ped"),
        ("BraTS24-PEDs-00001-000", "brats2024-ped"),
        ("C-BraTS_2025_PED_1", "brats2024-ped"),
    ],
)
def test_edition_before_the_paediatric_word_settles_its_coding(case_id: str, coding: str) -> None:
    assert choose_coding(case_id, SINCE_2023).name == coding


@pytest.mark.parametrize("case_id", ["BraTS-PED-2024-001", "BraTS-PED-00024-000", "hosp2024-PED-1"])
def test_year_that_may_be_a_number_settles_no_coding(case_id: str) -> None:
    with pytest.raises(CaseError, match="have had 2 codings"):
        choose_coding(case_id, SINCE_2023)


def test_paediatric_word_of_ones_own_means_nothing_in_the_older_file_names() -> None:
    assert choose_coding("PED_1", SINCE_2018).name == "brats2018"


@pytest.mark.parametrize(
    ("case_id", "coding"),
    [
        ("BraTS24-GLI-00005-100", "brats2024-gli"),
        ("BraTS-2024-GLI-00005-101", "brats2024-gli"),
        ("C-BraTS-GLI-00005-100", "brats2024-gli"),
        ("BraTS24-GLI-00005-000", "brats2023"),
    ],
)
def test_visit_after_treatment_is_known_in_ids_with_an_edition_or_a_prefix(case_id: str, coding: str) -> None:
    assert choose_coding(case_id, SINCE_2023).name == coding


@pytest.mark.parametrize("case_id", ["BraTS2024-MEN-RT-0002-1", "x_BraTS-MEN_RT-1"])
def test_radiotherapy_case_is_refused_under_other_ids(case_id: str) -> None:
    with pytest.raises(CaseError, match="BraTS-MEN-RT has one label"):
        choose_coding(case_id, SINCE_2023)


@pytest.mark.parametrize(
    ("case_id", "layout", "rules"),
    [
        ("BraTS20_Training_001", SINCE_2018, "gli"),
        ("BraTS2021_00006", SINCE_2018, "gli"),
        ("BraTS-GLI-00005-000", SINCE_2023, "gli"),
        ("BraTS-GLI-00005-100", SINCE_2023, "gli"),
        ("BraTS-SSA-00002-000", SINCE_2023, "ssa"),
        ("BraTS-PED-00001-000", SINCE_2023, "ped"),
        ("BraTS2024-PED-1", SINCE_2023, "ped"),
        ("PED-00001-000", SINCE_2023, "ped"),
        ("BraTS-MEN-00004-000", SINCE_2023, "men"),
        ("BraTS-MET-00001-000", SINCE_2023, "met"),
        ("BraTS-GoAT-00000", SINCE_2023, None),
        ("BraTS-XYZ-00001-000", SINCE_2023, None),
        ("patient7", SINCE_2018, None),
    ],
)
def test_lesions_are_scored_by_the_rules_of_the_challenge_that_the_id_names_else_by_those_asked_for(
    case_id: str, layout: Layout, rules: RulesName | None
) -> None:
    for otherwise in ("gli", "met"):
        assert scoring_rules(case_id, layout, otherwise) == (rules or otherwise)


@pytest.mark.parametrize(
    ("case_id", "layout", "labelled", "coding"),
    [
        ("patient7", "case-folders", True, None),
        ("patient7", "case-folders", False, "brats2023"),
        ("BraTS20_Training_001", "modality-folders", True, "brats2018"),
        ("BraTS-GLI-00005-100", "case-folders", True, "brats2024-gli"),
        ("BraTS-PED-00001-000", "case-folders", True, None),
        ("BraTS-PED-00001-000", "case-folders", False, None),
        ("BraTS-PED-00001-000", "brats2023", False, None),
        ("BraTS-MEN-RT-0002-1", "case-folders", False, None),
        ("BRATS_HG0001", "brats2012-mha", True, None),
        ("BRATS_HG0001", "brats2012-mha", False, "brats2013"),
        ("HGG_brats_2013_pat0001_1", "brats2013-mha", True, "brats2013"),
        ("volume_41", "hdf5-slices", True, "brats2018"),
        ("BRATS_001", "msd-task01", True, "msd-task01"),
        ("UCSF-PDGM-0004", "ucsf-pdgm", True, "brats2018"),
        ("UPENN-GBM-00001_11", "upenn-gbm", True, "brats2018"),
        ("sub-001", "bids", True, None),
        ("sub-001", "bids", False, "brats2023"),
        ("sub-001", "brats2018", True, "brats2018"),
    ],
)
def test_coding_without_asking_is_that_of_the_id_or_of_the_form(
    case_id: str, layout: str, labelled: bool, coding: str | None
) -> None:
    usual = usual_coding(case_id, LAYOUTS[layout], labelled=labelled)
    assert (usual.name if usual else None) == coding


@pytest.mark.parametrize("layout", ["hdf5-slices", "msd-task01", "brats2013-mha"])
def test_coding_that_a_form_states_is_not_replaced_by_the_one_asked_for(layout: str) -> None:
    assert choose_coding("x", LAYOUTS[layout], "brats2023") == LAYOUTS[layout].coding


def test_coding_that_labels_of_2012_never_had_leaves_them_open() -> None:
    with pytest.raises(CaseError, match="have had 2 codings"):
        choose_coding("BRATS_HG0001", LAYOUTS["brats2012-mha"], "brats2023")
