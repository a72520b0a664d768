"""Image files below a folder: by name and place, and the NIfTI files that no rule takes."""

from pathlib import Path

from brats.data.image_files import find_images, list_files

ODD_NAME = "W39_1998.09.19_Segm.nii"


def found(root: Path, *names: str) -> tuple[list[tuple[str, str, str]], list[str]]:
    """The case, kind and path of every image among these files, and the NIfTI files that no rule takes."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    images = find_images(str(root), list_files(str(root)))
    assert (images.rejects, images.notes) == ([], [])
    return [
        (image.case_id, image.kind, image.file.path.removeprefix(f"{root}/")) for image in images.images
    ], images.unused


def test_image_has_its_name_and_place(tmp_path: Path) -> None:
    images, unused = found(tmp_path, "HGG/a/a_flair.nii.gz", "labels/a_seg.nii")
    assert images == [("a", "flair", "HGG/a/a_flair.nii.gz"), ("a", "seg", "labels/a_seg.nii")]
    assert unused == []


def test_nifti_files_with_other_names_are_unused(tmp_path: Path) -> None:
    images, unused = found(
        tmp_path,
        "a_t1.nii",
        "a_brainmask.NII.GZ",
        "a_seg_auto.nii.gz",
        "sub/imagesTr/BRATS_001.nii.gz",
        "notes.txt",
    )
    assert images == [("a", "t1", "a_t1.nii")]
    assert unused == ["a_brainmask.NII.GZ", "a_seg_auto.nii.gz", "sub/imagesTr/BRATS_001.nii.gz"]


def test_segmentation_of_a_second_rater_is_nobodys(tmp_path: Path) -> None:
    images, unused = found(
        tmp_path, "case_1_t1.nii.gz", "case_2_t1.nii.gz", "case_1_segmentation_rater2.nii.gz", "case_1_Segm.nii"
    )
    assert {kind for _, kind, _ in images} == {"t1"}
    assert unused == ["case_1_Segm.nii", "case_1_segmentation_rater2.nii.gz"]


def test_folder_named_like_a_nifti_file_is_unused_once(tmp_path: Path) -> None:
    _, unused = found(
        tmp_path, "a_t1.nii", "a_mask.nii.gz/1.nii", "a_mask.nii.gz/2.nii", "a_mask.nii.gz/readme.txt"
    )
    assert unused == ["a_mask.nii.gz"]


def test_odd_name_is_the_segmentation_of_its_case_beside_its_images(tmp_path: Path) -> None:
    images, unused = found(
        tmp_path,
        "BraTS20_Training_354/BraTS20_Training_354_t1.nii",
        f"BraTS20_Training_355/{ODD_NAME}",
        "BraTS20_Training_355/BraTS20_Training_355_t1.nii",
    )
    assert images[-1] == ("BraTS20_Training_355", "seg", f"BraTS20_Training_355/{ODD_NAME}")
    assert unused == []


def test_odd_name_in_the_folder_of_another_case_is_unused(tmp_path: Path) -> None:
    images, unused = found(
        tmp_path, "355/BraTS20_Training_355_t1.nii", "354/BraTS20_Training_354_t1.nii", f"354/{ODD_NAME}"
    )
    assert {kind for _, kind, _ in images} == {"t1"}
    assert unused == [f"354/{ODD_NAME}"]


def test_odd_name_beside_the_usual_one_is_unused(tmp_path: Path) -> None:
    images, unused = found(tmp_path, "BraTS20_Training_355_seg.nii", "BraTS20_Training_355_t1.nii", ODD_NAME)
    assert [path for _, kind, path in images if kind == "seg"] == ["BraTS20_Training_355_seg.nii"]
    assert unused == [ODD_NAME]


def test_further_segmentation_of_a_case_is_unused(tmp_path: Path) -> None:
    images, unused = found(
        tmp_path, "a/a_t1.nii", "a/a_seg.nii", "a/a_brain_seg.nii", "b/a_rater2_seg.nii", "a/a-2-seg.nii"
    )
    assert sorted(images) == [("a", "seg", "a/a_seg.nii"), ("a", "t1", "a/a_t1.nii")]
    assert unused == ["a/a-2-seg.nii", "a/a_brain_seg.nii", "b/a_rater2_seg.nii"]


def test_further_segmentation_is_unused_among_segmentations_alone(tmp_path: Path) -> None:
    images, unused = found(tmp_path, "a_seg.nii.gz", "a_pred_seg.nii.gz", "ab_seg.nii.gz", "c_pred_seg.nii.gz")
    assert [case_id for case_id, _, _ in images] == ["a", "ab", "c_pred"]
    assert unused == ["a_pred_seg.nii.gz"]


def test_numbered_segmentation_among_segmentations_alone_is_a_case(tmp_path: Path) -> None:
    images, unused = found(tmp_path, "P-1-seg.nii.gz", "P-1-001-seg.nii.gz")
    assert sorted(case_id for case_id, _, _ in images) == ["P-1", "P-1-001"]
    assert unused == []


def test_longer_id_with_images_of_its_own_is_a_case(tmp_path: Path) -> None:
    images, unused = found(tmp_path, "a_t1.nii", "a_later_t1.nii", "a_later_seg.nii")
    assert {case_id for case_id, _, _ in images} == {"a", "a_later"}
    assert unused == []


MODALITIES = ("flair", "t1", "t1ce", "t2")


def test_folder_of_a_case_names_files_that_bear_the_modality_alone(tmp_path: Path) -> None:
    images, unused = found(tmp_path, "b/x_t1.nii", "a/t1c.nii.gz", "a/fla.nii.gz", "a/seg.nii", "a/brain.nii.gz")
    assert sorted(images) == [
        ("a", "flair", "a/fla.nii.gz"),
        ("a", "seg", "a/seg.nii"),
        ("a", "t1ce", "a/t1c.nii.gz"),
        ("x", "t1", "b/x_t1.nii"),
    ]
    assert unused == ["a/brain.nii.gz"]


def test_root_itself_may_be_the_folder_of_a_case_or_of_a_modality(tmp_path: Path) -> None:
    assert found(tmp_path / "a", "t1.nii.gz")[0] == [("a", "t1", "t1.nii.gz")]
    assert found(tmp_path / "labels", "a.nii.gz")[0] == [("a", "seg", "a.nii.gz")]


def test_folder_says_nothing_of_a_file_beside_images_with_names(tmp_path: Path) -> None:
    images, unused = found(
        tmp_path,
        "a/a_t1.nii",
        "a/t1.nii.gz",
        "t1/b_t1.nii",
        "t1/b_mask.nii",
        "labels/c_seg.nii",
        "labels/c_brain.nii",
    )
    assert sorted(path for *_, path in images) == ["a/a_t1.nii", "labels/c_seg.nii", "t1/b_t1.nii"]
    assert unused == ["a/t1.nii.gz", "labels/c_brain.nii", "t1/b_mask.nii"]


def test_labels_in_a_folder_of_their_own_complete_images_with_names(tmp_path: Path) -> None:
    images, unused = found(tmp_path, "images/a_t1.nii", "labels/a.nii.gz", "images/b_t1.nii", "images/b_seg.nii")
    assert ("a", "seg", "labels/a.nii.gz") in images
    assert unused == []


def test_labels_in_a_folder_of_their_own_complete_folders_of_cases(tmp_path: Path) -> None:
    for name in ("a/t1.nii", "labels/a.nii"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    images = find_images(str(tmp_path), list_files(str(tmp_path))).images
    assert {(image.kind, image.layout) for image in images} == {("t1", "case-folders"), ("seg", "case-folders")}


def test_labels_with_names_complete_a_folder_per_modality(tmp_path: Path) -> None:
    names = [*(f"{name}/a.nii.gz" for name in MODALITIES), "labels/a_seg.nii.gz"]
    images, unused = found(tmp_path, *names)
    assert {path for *_, path in images} == set(names)
    assert unused == []


def test_second_segmentation_in_a_folder_of_labels_is_unused(tmp_path: Path) -> None:
    images, unused = found(tmp_path, "a/a_t1.nii", "a/a_seg.nii", "labels/a.nii")
    assert ("a", "seg", "a/a_seg.nii") in images
    assert unused == ["labels/a.nii"]


def test_automatic_segmentation_is_used_only_without_another(tmp_path: Path) -> None:
    one, other = "UPENN-GBM-00001_11", "UPENN-GBM-00002_11"
    images, unused = found(
        tmp_path,
        *(f"{case_id}_T1.nii.gz" for case_id in (one, other)),
        *(f"{case_id}_automated_approx_segm.nii.gz" for case_id in (one, other)),
        f"{one}_segm.nii.gz",
    )
    assert {(case_id, kind) for case_id, kind, _ in images if kind != "t1"} == {
        (one, "seg"),
        (other, "automatic seg"),
    }
    assert unused == [f"{one}_automated_approx_segm.nii.gz"]


def test_image_files_of_other_kinds_are_unused_too(tmp_path: Path) -> None:
    _, unused = found(tmp_path, "a_t1.nii", "SimBRATS_HG0001_complete_truth.mha", "weights.h5", "notes.json")
    assert unused == ["SimBRATS_HG0001_complete_truth.mha"]
