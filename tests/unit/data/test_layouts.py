"""Input layouts: what a file name says."""

import pytest

from brats.data.layouts import LAYOUTS, SEGMENTATION, SINCE_2018, SINCE_2023, Layout, match


@pytest.mark.parametrize(
    ("name", "layout", "case_id", "kind"),
    [
        ("BraTS20_Training_001_flair.nii.gz", SINCE_2018, "BraTS20_Training_001", "flair"),
        ("BraTS20_Training_001_t1.nii", SINCE_2018, "BraTS20_Training_001", "t1"),
        ("BraTS2021_00000_T1CE.nii.gz", SINCE_2018, "BraTS2021_00000", "t1ce"),
        ("BraTS20_Training_001_seg.nii.gz", SINCE_2018, "BraTS20_Training_001", SEGMENTATION),
        ("BraTS-GLI-00005-000-t2f.nii.gz", SINCE_2023, "BraTS-GLI-00005-000", "flair"),
        ("BraTS-GLI-00005-000-t1c.nii.gz", SINCE_2023, "BraTS-GLI-00005-000", "t1ce"),
        ("a-t1n_t2.nii.gz", SINCE_2018, "a-t1n", "t2"),
    ],
)
def test_name_says_layout_case_and_kind(name: str, layout: Layout, case_id: str, kind: str) -> None:
    assert match(name) == (layout, case_id, kind)


@pytest.mark.parametrize(
    "name", ["_flair.nii.gz", "a_flair.mha", "a_flair.nii.gz.bak", "a_pd.nii.gz", "flair.nii.gz"]
)
def test_other_names_match_no_layout(name: str) -> None:
    assert match(name) is None


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_file_name_is_matched_as_what_it_was_made_for(layout: Layout) -> None:
    for kind in layout.suffixes:
        assert match(layout.file_name("case_1", kind)) == (layout, "case_1", kind)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_example_of_a_layout_matches_it(layout: Layout) -> None:
    found = match(layout.example.split()[0])
    assert found is not None
    assert found.layout == layout
