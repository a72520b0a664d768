"""Finding BraTS cases by the names of their files."""

from dataclasses import replace
from pathlib import Path

import pytest

from brats import storage
from brats.config import MODALITIES
from brats.data.cases import CaseFiles, Hdf5Options, count_codings, find_cases
from brats.data.rejects import Reject
from brats.data.sources import SourceFile
from brats.errors import ConfigError
from tests.support.forms import write_decathlon_case, write_ucsf_pdgm

KINDS_2018 = ("flair", "t1", "t1ce", "t2", "seg")
KINDS_2023 = ("t2f", "t1n", "t1c", "t2w", "seg")

MAPPING_HEADER = (
    "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,"
    "BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
)


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def touch_case(folder: Path, case_id: str, without: str = "", suffix: str = ".nii.gz") -> None:
    kinds = [kind for kind in KINDS_2018 if kind not in without.split()]
    touch(folder, *(f"{case_id}_{kind}{suffix}" for kind in kinds))


def touch_case_2023(folder: Path, case_id: str) -> None:
    touch(folder, *(f"{case_id}-{kind}.nii.gz" for kind in KINDS_2023))


def found_ids(root: Path) -> list[str]:
    discovery = find_cases(str(root))
    assert discovery.rejects == ()
    return [case.case_id for case in discovery.cases]


def only_case(root: Path) -> CaseFiles:
    discovery = find_cases(str(root))
    assert discovery.rejects == ()
    (case,) = discovery.cases
    return case


def only_reject(root: Path) -> Reject:
    (reject,) = find_cases(str(root)).rejects
    assert reject.stage == "find"
    assert not reject.transient
    return reject


def test_a_2020_case_folder_gives_its_five_files(tmp_path: Path) -> None:
    touch_case(tmp_path / "BraTS20_Training_001", "BraTS20_Training_001", suffix=".nii")
    case = only_case(tmp_path)
    folder = f"{tmp_path}/BraTS20_Training_001/BraTS20_Training_001"
    assert (case.case_id, case.patient_id) == ("BraTS20_Training_001", "BraTS20_Training_001")
    assert case.layout == "brats2018"
    assert {kind: file.path for kind, file in case.images.items()} == {
        "flair": f"{folder}_flair.nii",
        "t1": f"{folder}_t1.nii",
        "t1ce": f"{folder}_t1ce.nii",
        "t2": f"{folder}_t2.nii",
    }
    assert tuple(case.images) == MODALITIES
    assert case.segmentation == storage.FileInfo(f"{folder}_seg.nii", 1)


def test_2023_names_mean_the_same_modalities(tmp_path: Path) -> None:
    touch_case_2023(tmp_path / "BraTS-GLI-00005-000", "BraTS-GLI-00005-000")
    case = only_case(tmp_path)
    assert case.layout == "brats2023"
    assert [file.name.rsplit("-")[-1] for file in case.images.values()] == [
        "t2f.nii.gz",
        "t1n.nii.gz",
        "t1c.nii.gz",
        "t2w.nii.gz",
    ]
    assert case.segmentation is not None
    assert case.segmentation.name == "BraTS-GLI-00005-000-seg.nii.gz"


def test_cases_are_found_at_any_depth_and_sorted(tmp_path: Path) -> None:
    touch_case(tmp_path / "a/b/c/case_2", "case_2")
    touch_case_2023(tmp_path / "z/BraTS-GLI-00001-000", "BraTS-GLI-00001-000")
    touch_case(tmp_path, "case_1")
    assert found_ids(tmp_path) == ["BraTS-GLI-00001-000", "case_1", "case_2"]


def test_cases_flat_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    for case_id in ("case_1", "case_10", "case_1_t1"):
        touch_case(tmp_path, case_id)
    discovery = find_cases(str(tmp_path))
    assert [case.case_id for case in discovery.cases] == ["case_1", "case_10", "case_1_t1"]
    assert [case.images["t2"].name for case in discovery.cases] == [
        "case_1_t2.nii.gz",
        "case_10_t2.nii.gz",
        "case_1_t1_t2.nii.gz",
    ]


def test_upper_case_endings_are_understood(tmp_path: Path) -> None:
    touch(tmp_path, *(f"x_{kind.upper()}.NII.GZ" for kind in KINDS_2018))
    assert tuple(only_case(tmp_path).images) == MODALITIES


def test_an_unlabelled_case_has_no_segmentation(tmp_path: Path) -> None:
    touch_case(tmp_path, "BraTS20_Validation_001", without="seg")
    assert only_case(tmp_path).segmentation is None


def test_other_files_are_ignored(tmp_path: Path) -> None:
    touch_case(tmp_path, "x")
    touch(tmp_path, "readme.txt", "x_flair.json", "x_t1_brainmask.nii.gz", "survival_info.csv", "x_t1.hdr")
    assert found_ids(tmp_path) == ["x"]


def test_hidden_files_and_folders_are_ignored(tmp_path: Path) -> None:
    touch_case(tmp_path / "x", "x")
    touch(tmp_path, "x/._x_flair.nii.gz", "x/.partial-x_flair.nii.gz", ".Trash/x_flair.nii.gz")
    assert found_ids(tmp_path) == ["x"]


def test_hidden_folders_above_the_root_are_no_matter(tmp_path: Path) -> None:
    touch_case(tmp_path / ".cache/data", "x")
    assert found_ids(tmp_path / ".cache/data") == ["x"]


def test_the_odd_segmentation_of_case_355_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "BraTS20_Training_355"
    touch_case(folder, "BraTS20_Training_355", without="seg", suffix=".nii")
    touch(folder, "W39_1998.09.19_Segm.nii")
    segmentation = only_case(tmp_path).segmentation
    assert segmentation is not None
    assert segmentation.path == f"{folder}/W39_1998.09.19_Segm.nii"


def test_an_unlabelled_case_keeps_no_other_segmentation(tmp_path: Path) -> None:
    touch_case(tmp_path, "case_1")
    touch_case(tmp_path, "case_2", without="seg")
    touch(tmp_path, "case_1_segmentation_rater2.nii.gz", "case_2_Segm.nii.gz", "case_2_brain_segmentation.nii.gz")
    found = find_cases(str(tmp_path))
    assert [case.segmentation and case.segmentation.name for case in found.cases] == ["case_1_seg.nii.gz", None]
    assert found.notes() == [
        "3 NIfTI files belong to no case: case_1_segmentation_rater2.nii.gz, case_2_Segm.nii.gz, "
        "case_2_brain_segmentation.nii.gz"
    ]


def test_a_mask_of_a_second_rater_is_no_reference_of_another_case(tmp_path: Path) -> None:
    touch_case(tmp_path, "case_1")
    touch_case(tmp_path, "case_2", without="seg")
    touch(tmp_path, "case_1_rater2_seg.nii.gz")
    found = find_cases(str(tmp_path))
    assert [case.segmentation and case.segmentation.name for case in found.cases] == ["case_1_seg.nii.gz", None]
    assert found.rejects == ()
    assert found.notes() == ["1 NIfTI file belongs to no case: case_1_rater2_seg.nii.gz"]


def test_many_files_of_no_case_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    touch_case(tmp_path / "x", "x")
    touch(tmp_path, *(f"imagesTr/BRATS_{number:03d}.nii.gz" for number in range(5)))
    assert find_cases(str(tmp_path)).notes() == [
        "5 NIfTI files belong to no case: imagesTr/BRATS_000.nii.gz, imagesTr/BRATS_001.nii.gz, "
        "imagesTr/BRATS_002.nii.gz and 2 more"
    ]


def test_one_file_of_no_case_is_named(tmp_path: Path) -> None:
    touch_case(tmp_path, "x")
    touch(tmp_path, "x_brainmask.nii.gz")
    assert find_cases(str(tmp_path)).notes() == ["1 NIfTI file belongs to no case: x_brainmask.nii.gz"]


def test_a_missing_modality_is_named_with_what_was_found(tmp_path: Path) -> None:
    touch_case(tmp_path / "good", "good")
    touch_case(tmp_path / "bad", "bad", without="flair t1ce")
    discovery = find_cases(str(tmp_path))
    assert [case.case_id for case in discovery.cases] == ["good"]
    assert discovery.rejects == (
        Reject(
            case_id="bad",
            path=f"{tmp_path}/bad",
            stage="find",
            reason="lacks flair and t1ce (bad_flair.nii.gz); found t1, t2, seg",
        ),
    )


def test_a_missing_2023_modality_is_named_by_its_file(tmp_path: Path) -> None:
    touch_case_2023(tmp_path, "BraTS-GLI-00005-000")
    (tmp_path / "BraTS-GLI-00005-000-t1c.nii.gz").unlink()
    assert only_reject(tmp_path).reason == ("lacks t1ce (BraTS-GLI-00005-000-t1c.nii.gz); found flair, t1, t2, seg")


def test_a_missing_modality_that_is_not_wanted_is_fine(tmp_path: Path) -> None:
    touch_case(tmp_path, "x", without="flair t1ce")
    discovery = find_cases(str(tmp_path), modalities=("t1", "t2"))
    assert discovery.rejects == ()
    assert list(discovery.cases[0].images) == ["t1", "t2"]


def test_with_no_modality_wanted_a_lone_segmentation_is_a_case(tmp_path: Path) -> None:
    touch(tmp_path, "x_seg.nii.gz")
    (case,) = find_cases(str(tmp_path), modalities=()).cases
    assert case.images == {}
    assert case.segmentation is not None


def test_two_files_for_one_modality_are_both_named(tmp_path: Path) -> None:
    touch_case(tmp_path, "x")
    touch(tmp_path, "x_flair.nii")
    assert only_reject(tmp_path).reason == "2 files for flair: x_flair.nii and x_flair.nii.gz; keep one"


def test_a_case_that_lies_twice_is_refused_once_naming_two_paths(tmp_path: Path) -> None:
    touch_case(tmp_path / "one/x", "x")
    touch_case(tmp_path / "two/x", "x")
    touch_case(tmp_path / "y", "y")
    discovery = find_cases(str(tmp_path))
    assert [case.case_id for case in discovery.cases] == ["y"]
    ((case_id, reason),) = [(reject.case_id, reject.reason) for reject in discovery.rejects]
    assert case_id == "x"
    assert reason.startswith("2 files for ")
    assert f"{tmp_path}/one/x/x_" in reason
    assert f" and {tmp_path}/two/x/x_" in reason
    assert reason.endswith("; keep one")


def test_one_file_that_lies_twice_is_named_by_both_paths(tmp_path: Path) -> None:
    touch_case(tmp_path / "x", "x")
    touch(tmp_path, "old/x_seg.nii.gz")
    assert only_reject(tmp_path).reason == (
        f"2 files for seg: {tmp_path}/old/x_seg.nii.gz and {tmp_path}/x/x_seg.nii.gz; keep one"
    )


def test_one_folder_per_modality_makes_whole_cases(tmp_path: Path) -> None:
    for kind in KINDS_2018:
        touch(tmp_path / kind, f"x_{kind}.nii.gz", f"y_{kind}.nii.gz")
    discovery = find_cases(str(tmp_path))
    assert discovery.rejects == ()
    assert [case.case_id for case in discovery.cases] == ["x", "y"]
    for case in discovery.cases:
        assert tuple(case.images) == MODALITIES
        assert case.segmentation is not None
        assert case.segmentation.path == f"{tmp_path}/seg/{case.case_id}_seg.nii.gz"


def test_labels_in_a_folder_of_their_own_are_of_the_cases(tmp_path: Path) -> None:
    touch_case(tmp_path / "images/HGG/x", "x", without="seg")
    touch(tmp_path / "labels", "x_seg.nii.gz")
    case = only_case(tmp_path)
    assert case.segmentation is not None
    assert case.segmentation.path == f"{tmp_path}/labels/x_seg.nii.gz"
    assert case.grade == "HGG"


def test_files_named_as_in_two_editions_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x_flair.nii.gz", "x-seg.nii.gz")
    assert only_reject(tmp_path).reason == (
        "files in the forms brats2018 and brats2023: x_flair.nii.gz and x-seg.nii.gz; keep those of one"
    )


def test_a_folder_named_like_an_image_is_refused_by_name(tmp_path: Path) -> None:
    touch_case(tmp_path, "x", without="flair")
    touch(tmp_path, "x_flair.nii.gz/00000057_brain_flair.nii", "x_flair.nii.gz/readme.txt")
    reject = only_reject(tmp_path)
    assert (reject.case_id, reject.path) == ("x", str(tmp_path))
    assert reject.reason == "x_flair.nii.gz is a folder, not a file"


def test_an_empty_folder_named_like_an_image_leaves_that_image_missing(tmp_path: Path) -> None:
    touch_case(tmp_path, "x", without="flair")
    (tmp_path / "x_flair.nii.gz").mkdir()
    assert only_reject(tmp_path).reason == "lacks flair (x_flair.nii.gz); found t1, t1ce, t2, seg"


@pytest.mark.parametrize("case_id", ["a b", "-x", "x;y", "ä"])
def test_an_id_that_cannot_name_a_file_is_refused(tmp_path: Path, case_id: str) -> None:
    touch_case(tmp_path, case_id)
    reject = only_reject(tmp_path)
    assert reject.case_id == case_id
    assert "cannot name a file" in reject.reason


def test_a_missing_folder_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        find_cases(str(tmp_path / "nowhere"))


def test_an_empty_folder_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the folder is empty"):
        find_cases(str(tmp_path))


def test_a_folder_without_cases_says_what_names_are_expected(tmp_path: Path) -> None:
    touch(tmp_path, "image.nii.gz", "notes/readme.txt")
    with pytest.raises(
        ConfigError, match=r"no BraTS case among 2 files, such as image\.nii\.gz; .*001_flair\.nii\.gz"
    ):
        find_cases(str(tmp_path))


def test_visits_are_cases_of_one_patient(tmp_path: Path) -> None:
    for case_id in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"):
        touch_case_2023(tmp_path / case_id, case_id)
    patients = [case.patient_id for case in find_cases(str(tmp_path)).cases]
    assert patients == ["BraTS-GLI-00005", "BraTS-GLI-00005", "BraTS-GLI-00006"]


def test_the_sources_have_the_size_and_the_stamp_of_the_listing(tmp_path: Path) -> None:
    path = tmp_path / "a_t1.nii"
    path.write_bytes(b"123")
    (listed,) = storage.list_files(str(tmp_path))
    (found,) = find_cases(str(tmp_path), ("t1",)).cases
    assert found.sources(("t1",)) == (SourceFile(kind="t1", size=3, path=str(path), stamp=listed.stamp),)


def test_the_source_bytes_are_those_of_the_files_in_use(tmp_path: Path) -> None:
    for size, kind in enumerate(KINDS_2018, start=1):
        (tmp_path / f"x_{kind}.nii").write_bytes(bytes(10**size))
    case = only_case(tmp_path)
    assert case.source_bytes(("t1", "t2")) == 100 + 10000 + 100000
    assert replace(case, segmentation=None).source_bytes(("flair",)) == 10


@pytest.mark.parametrize(("folder", "grade"), [("HGG/x", "HGG"), ("a/lgg", "LGG"), ("other/x", "")])
def test_the_grade_is_taken_from_the_folders(tmp_path: Path, folder: str, grade: str) -> None:
    touch_case(tmp_path / folder, "x")
    assert only_case(tmp_path).grade == grade


def test_a_name_mapping_gives_grades_and_overrules_folders(tmp_path: Path) -> None:
    touch_case(tmp_path / "HGG/BraTS20_Training_001", "BraTS20_Training_001")
    touch_case(tmp_path / "HGG/BraTS20_Training_002", "BraTS20_Training_002")
    (tmp_path / "name_mapping.csv").write_text(
        MAPPING_HEADER + "LGG,NA,NA,NA,NA,BraTS20_Training_001\n", encoding="utf-8-sig"
    )
    assert [case.grade for case in find_cases(str(tmp_path)).cases] == ["LGG", "HGG"]


def test_ids_in_one_row_of_a_name_mapping_are_one_patient(tmp_path: Path) -> None:
    for case_id in ("Brats17_CBICA_AAB_1", "BraTS20_Training_001", "BraTS20_Training_002"):
        touch_case(tmp_path / case_id, case_id)
    (tmp_path / "Brats17_CBICA_AAB_1/name_mapping.csv").write_text(
        MAPPING_HEADER
        + "HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1,BraTS20_Training_001\n"
        + "HGG,NA,NA,NA,NA,BraTS20_Training_002\n"
    )
    cases = find_cases(str(tmp_path)).cases
    assert {case.case_id: case.patient_id for case in cases} == {
        "Brats17_CBICA_AAB_1": "BraTS20_Training_001",
        "BraTS20_Training_001": "BraTS20_Training_001",
        "BraTS20_Training_002": "BraTS20_Training_002",
    }
    assert {case.grade for case in cases} == {"HGG"}


def test_rows_of_two_mappings_that_share_a_name_are_one_patient(tmp_path: Path) -> None:
    for case_id in ("Brats17_A_1", "BraTS20_Training_001", "BraTS20_Validation_001"):
        touch_case(tmp_path, case_id)
    (tmp_path / "name_mapping.csv").write_text(
        MAPPING_HEADER + "LGG,Brats17_A_1,NA,TCGA-02-0006,NA,BraTS20_Training_001\n"
    )
    (tmp_path / "name_mapping_validation_data.csv").write_text(
        "TCGA_TCIA_subject_ID,BraTS_2020_subject_ID\nTCGA-02-0006,BraTS20_Validation_001\n"
    )
    cases = find_cases(str(tmp_path)).cases
    assert [case.patient_id for case in cases] == ["A", "A", "A"]
    assert [case.grade for case in cases] == ["LGG", "LGG", "LGG"]


def test_a_malformed_name_mapping_is_a_configuration_error(tmp_path: Path) -> None:
    touch_case(tmp_path, "x")
    (tmp_path / "name_mapping.csv").write_bytes(b"Grade BraTS_2020_subject_ID\n")
    with pytest.raises(ConfigError, match=r"name_mapping\.csv: no column such as BraTS_2020_subject_ID"):
        find_cases(str(tmp_path))


def test_a_name_mapping_of_other_cases_is_said(tmp_path: Path) -> None:
    touch_case(tmp_path, "x")
    (tmp_path / "name_mapping.csv").write_text(MAPPING_HEADER + "HGG,NA,NA,NA,NA,BraTS20_Training_001\n")
    (note,) = find_cases(str(tmp_path)).notes()
    assert "name_mapping.csv: none of its 1 ids (the first is BraTS20_Training_001)" in note


def test_visits_of_a_mapping_with_semicolons_are_one_patient(tmp_path: Path) -> None:
    for case_id in ("BraTS19_A_1", "BraTS20_Training_001"):
        touch_case(tmp_path, case_id)
    text = MAPPING_HEADER + "LGG,NA,NA,NA,BraTS19_A_1,BraTS20_Training_001\n"
    (tmp_path / "name_mapping.csv").write_text(text.replace(",", ";"))
    found = find_cases(str(tmp_path))
    assert [(case.patient_id, case.grade) for case in found.cases] == [("A", "LGG"), ("A", "LGG")]
    assert found.notes() == []


def test_a_paediatric_case_waits_for_its_coding(tmp_path: Path) -> None:
    touch_case_2023(tmp_path / "a", "BraTS-PED-00001-000")
    touch_case_2023(tmp_path / "b", "BraTS-GLI-00005-000")
    touch_case_2023(tmp_path / "c", "BraTS-GLI-00005-100")
    found = find_cases(str(tmp_path))
    assert [(case.case_id, case.coding) for case in found.cases] == [
        ("BraTS-GLI-00005-000", "brats2023"),
        ("BraTS-GLI-00005-100", "brats2024-gli"),
    ]
    (reject,) = found.rejects
    assert reject.case_id == "BraTS-PED-00001-000"
    assert "--coding brats2023-ped" in reject.reason
    assert "--coding brats2024-ped" in reject.reason
    chosen = find_cases(str(tmp_path), coding="brats2024-ped")
    assert chosen.rejects == ()
    assert [case.coding for case in chosen.cases] == ["brats2023", "brats2024-gli", "brats2024-ped"]


def test_a_coding_that_no_case_may_have_is_a_configuration_error(tmp_path: Path) -> None:
    touch_case(tmp_path, "BraTS20_Training_001")
    with pytest.raises(ConfigError, match=r"--coding: brats2024-ped is .* brats2018 of 1 case; leave --coding out"):
        find_cases(str(tmp_path), coding="brats2024-ped")


def test_codings_are_counted() -> None:
    assert count_codings(["b", "a", "b"]) == "a of 1 case, b of 2 cases"


def test_a_remote_folder_is_found_like_a_local_one(s3_bucket: str) -> None:
    for kind in KINDS_2018:
        storage.write_bytes(f"{s3_bucket}/HGG/x/x_{kind}.nii.gz", b"abc")
    storage.write_bytes(f"{s3_bucket}/name_mapping.csv", f"{MAPPING_HEADER}LGG,x,NA,NA,NA,NA\n".encode())
    discovery = find_cases(s3_bucket + "/")
    (case,) = discovery.cases
    assert discovery.rejects == ()
    assert case.grade == "LGG"
    assert case.images["t1ce"].size == 3
    assert storage.read_bytes(case.images["t1ce"].path) == b"abc"


def test_one_listing_is_all_that_the_storage_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch_case(tmp_path / "x", "x")
    touch_case(tmp_path / "y", "y")
    listed = storage.list_files(str(tmp_path))
    asked: list[str] = []

    def list_once(root: str) -> list[storage.FileInfo]:
        asked.append(root)
        return listed

    monkeypatch.setattr(storage, "list_files", list_once)
    for name in ("read_bytes", "exists"):
        monkeypatch.delattr(storage, name)
    assert len(find_cases(str(tmp_path)).cases) == 2
    assert asked == [str(tmp_path)]


@pytest.mark.parametrize("folder", ["patient7", "BraTS-GLI-00005-000", "BraTS20_Training_001"])
def test_coding_of_files_named_by_their_folder_is_that_of_the_id_or_asked_for(tmp_path: Path, folder: str) -> None:
    touch(tmp_path / folder, *(f"{kind}.nii.gz" for kind in KINDS_2018))
    if folder == "patient7":
        reason = only_reject(tmp_path).reason
        assert reason.startswith(
            "neither its id nor the names of its files say how its segmentation is coded; add "
        )
        assert "--coding brats2023 (1 NCR, 2 ED, 3 ET) or --coding brats2018 (1 NCR, 2 ED, 4 ET)" in reason
        (case,) = find_cases(str(tmp_path), coding="brats2018").cases
        assert case.coding == "brats2018"
    else:
        assert only_case(tmp_path).coding == ("brats2023" if "GLI" in folder else "brats2018")


def test_unlabelled_case_named_by_its_folder_needs_no_coding(tmp_path: Path) -> None:
    touch(tmp_path / "patient7", *(f"{kind}.nii.gz" for kind in KINDS_2018[:4]))
    assert only_case(tmp_path).coding == "brats2023"


def test_labels_of_2012_wait_for_their_coding(tmp_path: Path) -> None:
    touch(tmp_path, *(f"BRATS_HG0001_{kind}.mha" for kind in ("FLAIR", "T1", "T1C", "T2", "truth")))
    assert only_reject(tmp_path).reason == (
        "segmentations named as BRATS_HG0001_T1C.mha (2012) have had 2 codings; add --coding brats2013 "
        "(1 NCR, 2 ED, 3 NET, 4 ET) or --coding brats2012 (1 ED, 2 the whole core, ET not told apart)"
    )


def test_coding_of_a_described_case_is_fixed(tmp_path: Path) -> None:
    write_decathlon_case(tmp_path, 1)
    assert only_case(tmp_path).coding == "msd-task01"
    with pytest.raises(ConfigError, match="--coding: brats2018 is the coding of no case"):
        find_cases(str(tmp_path), coding="brats2018")


def test_half_a_folder_per_modality_is_rejected_by_what_is_missing(tmp_path: Path) -> None:
    touch_case(tmp_path, "good")
    touch(tmp_path, "t1/x.nii.gz", "t2/x.nii.gz")
    found = find_cases(str(tmp_path))
    assert [case.case_id for case in found.cases] == ["good"]
    assert [reject.reason for reject in found.rejects] == ["lacks flair and t1ce (flair/x.nii.gz); found t1, t2"]


def test_two_forms_of_one_id_are_rejected_and_others_are_not(tmp_path: Path) -> None:
    touch_case(tmp_path, "good")
    touch(tmp_path, "x/t1.nii.gz", "t2/x.nii.gz", "flair/x.nii.gz", "t1ce/x.nii.gz")
    found = find_cases(str(tmp_path))
    assert [case.case_id for case in found.cases] == ["good"]
    (reject,) = found.rejects
    assert reject.reason.startswith("files in the forms case-folders and modality-folders: ")


def test_description_of_another_task_is_noted_beside_good_cases(tmp_path: Path) -> None:
    touch_case(tmp_path, "good")
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "CT"}}')
    found = find_cases(str(tmp_path))
    assert [case.case_id for case in found.cases] == ["good"]
    (note,) = found.notes()
    assert note.startswith(f'{tmp_path}/dataset.json: its modality is {{"0": "CT"}}; Task01_BrainTumour ')


def test_description_of_another_task_alone_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "CT"}}')
    with pytest.raises(ConfigError, match=r'dataset.json: its modality is \{"0": "CT"\}; Task01_BrainTumour '):
        find_cases(str(tmp_path))


def test_case_of_which_a_described_file_is_not_there_is_rejected(tmp_path: Path) -> None:
    good, bad = (write_decathlon_case(tmp_path, number) for number in (1, 2))
    (tmp_path / "labelsTr" / f"{bad}.nii.gz").unlink()
    found = find_cases(str(tmp_path))
    assert [case.case_id for case in found.cases] == [good]
    assert [reject.case_id for reject in found.rejects] == [bad]
    assert found.notes() == [f"1 NIfTI file belongs to no case: imagesTr/{bad}.nii.gz"]


def test_slices_have_the_options_of_their_form(tmp_path: Path) -> None:
    touch(tmp_path, *(f"volume_1_slice_{number}.h5" for number in range(155)))
    options = Hdf5Options(channels=("flair", "t1", "t1ce", "t2"), spacing_hwz_mm=(1.0, 1.0, 2.0))
    found = find_cases(str(tmp_path), hdf5=options)
    (case,) = found.cases
    assert (case.channels, case.spacing_hwz_mm, case.coding) == (options.channels, (1.0, 1.0, 2.0), "brats2018")
    assert case.image_name("t1") == "volume_1_slice_*.h5 (t1)"
    assert [file.kind for file in case.sources(("t1",))][::154] == ["slice 0", "slice 154"]
    assert found.notes() == [
        "hdf5-slices states no voxel size: ml and mm of its cases are of voxels of 1 x 1 x 2 mm (--hdf5-spacing-mm)"
    ]


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (Hdf5Options(channels=("flair", "t1", "t1ce", "t2")), "--hdf5-channels"),
        (Hdf5Options(spacing_hwz_mm=(1.0, 1.0, 2.0)), "--hdf5-spacing-mm"),
    ],
)
def test_options_of_slices_without_slices_are_a_configuration_error(
    tmp_path: Path, options: Hdf5Options, option: str
) -> None:
    touch_case(tmp_path, "x")
    with pytest.raises(ConfigError, match=f"{option}: no case below .* volume_41_slice_0.h5 .*; leave it out"):
        find_cases(str(tmp_path), hdf5=options)


def test_many_files_beside_a_collection_are_one_note(tmp_path: Path) -> None:
    write_ucsf_pdgm(tmp_path, 4)
    (note,) = find_cases(str(tmp_path)).notes()
    assert note.startswith("3 NIfTI files belong to no case: UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_ADC.nii.gz, ")


@pytest.mark.real
def test_twelve_labelled_real_cases_are_found(real_data_dir: str) -> None:
    discovery = find_cases(real_data_dir)
    assert discovery.rejects == ()
    assert len(discovery.cases) == 12
    for case in discovery.cases:
        assert case.layout == "brats2018"
        assert tuple(case.images) == MODALITIES
        assert case.segmentation is not None
        assert case.segmentation.name == f"{case.case_id}_seg.nii.gz"
