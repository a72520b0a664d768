"""Input layouts: what a file name says."""

import pytest

from brats.data.layouts import (
    AUTOMATIC,
    LAYOUTS,
    SEGMENTATION,
    SIMULATED,
    SINCE_2018,
    SINCE_2023,
    Layout,
    copy_warnings,
    match,
)


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


NAMED = [layout for layout in LAYOUTS.values() if layout.pattern]
"""All but the one whose files only a description names."""


def case_of(layout: Layout) -> str:
    """A case as the layout names them."""
    found = match(layout.example.split()[0])
    assert found is not None
    return found.case_id


@pytest.mark.parametrize("layout", [layout for layout in NAMED if layout.words], ids=lambda layout: layout.name)
def test_file_name_is_matched_as_what_it_was_made_for(layout: Layout) -> None:
    for kind in layout.words:
        assert match(layout.file_name(case_of(layout), kind)) == (layout, case_of(layout), kind)


@pytest.mark.parametrize("layout", NAMED, ids=lambda layout: layout.name)
def test_example_of_a_layout_matches_it(layout: Layout) -> None:
    found = match(layout.example.split()[0])
    assert found is not None
    assert found.layout == layout


@pytest.mark.parametrize(
    ("path", "layout", "case_id", "kind"),
    [
        ("data/patient7/t1c.nii.gz", "case-folders", "patient7", "t1ce"),
        ("patient7/fla.nii.gz", "case-folders", "patient7", "flair"),
        ("patient7/T1.nii", "case-folders", "patient7", "t1"),
        ("patient7/seg.nii.gz", "case-folders", "patient7", SEGMENTATION),
        ("t1ce/patient7.nii.gz", "modality-folders", "patient7", "t1ce"),
        ("data/labels/patient.7.nii.gz", "modality-folders", "patient.7", SEGMENTATION),
        ("UCSF-PDGM-0004_FLAIR.nii.gz", "ucsf-pdgm", "UCSF-PDGM-0004", "flair"),
        ("UCSF-PDGM-0004_tumor_segmentation.nii.gz", "ucsf-pdgm", "UCSF-PDGM-0004", SEGMENTATION),
        ("UCSF-PDGM-0138_FU003d_T1c.nii.gz", "ucsf-pdgm", "UCSF-PDGM-0138_FU003d", "t1ce"),
        ("UPENN-GBM-00001_11_T1GD.nii.gz", "upenn-gbm", "UPENN-GBM-00001_11", "t1ce"),
        ("UPENN-GBM-00001_11_segm.nii.gz", "upenn-gbm", "UPENN-GBM-00001_11", SEGMENTATION),
        ("UPENN-GBM-00001_11_automated_approx_segm.nii.gz", "upenn-gbm", "UPENN-GBM-00001_11", AUTOMATIC),
        ("sub-01/anat/sub-01_T1w.nii.gz", "bids", "sub-01", "t1"),
        ("sub-01/anat/sub-01_acq-mprage_ce-GD_run-1_space-SRI24_desc-preproc_T1w.nii.gz", "bids", "sub-01", "t1ce"),
        ("sub-01/ses-2/anat/sub-01_ses-2_ce-gadobutrol_T1w.nii.gz", "bids", "sub-01_ses-2", "t1ce"),
        ("anat/sub-01_space-MNI_T1gd.nii", "bids", "sub-01", "t1ce"),
        ("anat/sub-01_ses-2_space-MNI_FLAIR.nii.gz", "bids", "sub-01_ses-2", "flair"),
        ("anat/sub-01_T2w.nii.gz", "bids", "sub-01", "t2"),
        ("anat/sub-01_space-orig_desc-tumour_dseg.nii.gz", "bids", "sub-01", SEGMENTATION),
        ("anat/sub-01_ce-gadolinium_space-orig_desc-wholeLesion_dseg.nii.gz", "bids", "sub-01", SEGMENTATION),
        ("anat/sub-01_acq-post_desc-tumor_dseg.nii.gz", "bids", "sub-01", SEGMENTATION),
        ("anat/sub-01_desc-tumourPostop_seg.nii.gz", "bids", "sub-01", SEGMENTATION),
        ("anat/sub-01_ce-gadolinium_desc-postcontrast_T1w.nii.gz", "bids", "sub-01", "t1ce"),
        ("anat/sub-01_desc-postproc_T1w.nii.gz", "bids", "sub-01", "t1"),
        ("anat/sub-01_desc-registeredToT1c_FLAIR.nii.gz", "bids", "sub-01", "flair"),
        ("anat/sub-01_seg.nii.gz", "bids", "sub-01", SEGMENTATION),
        ("anat/sub-01_ce-gadolinium_T1ce.nii.gz", "bids", "sub-01", "t1ce"),
        ("sub-01/sub-01_flair.nii.gz", "brats2018", "sub-01", "flair"),
        ("BRATS_LG0008_truth.mha", "brats2012-mha", "BRATS_LG0008", SEGMENTATION),
        ("SimBRATS_HG0001_FLAIR.mha", "brats2012-mha", "SimBRATS_HG0001", "flair"),
        ("a/brats_tcia_pat105_0001/VSD.Brain.XX.O.MR_T2.1.mha", "brats2013-mha", "brats_tcia_pat105_0001", "t2"),
        ("HG/0001/VSD.Brain.XX.O.MR_T1/VSD.Brain.XX.O.MR_T1.685.mha", "brats2013-mha", "HG_0001", "t1"),
        ("LGG/b_pat1_1/VSD.Brain_3more.XX.XX.OT.6560.mha", "brats2013-mha", "LGG_b_pat1_1", SEGMENTATION),
        ("HG/0001 (1)/VSD.Brain_3more.XX.O.OT (2).mha", "brats2013-mha", "HG_0001", SEGMENTATION),
        ("HG/0001/VSD.Brain.XX.O.MR_T1c.686 (1).mha", "brats2013-mha", "HG_0001", "t1ce"),
        ("HG/0001/VSD.Gray_matter_of_neuraxis_5more.XX.O.OT.870.mha", "brats2013-mha", "HG_0001", SIMULATED),
        ("data/volume_41_slice_154.h5", "hdf5-slices", "volume_41", "slice_154"),
    ],
)
def test_path_says_layout_case_and_kind(path: str, layout: str, case_id: str, kind: str) -> None:
    assert match(path) == (LAYOUTS[layout], case_id, kind)


@pytest.mark.parametrize(
    "path",
    [
        "UCSF-PDGM-0004_T1_bias.nii.gz",
        "UCSF-PDGM-0004_brain_segmentation.nii.gz",
        "UCSF-PDGM-0004_ADC.nii.gz",
        "UPENN-GBM-00001_11_T1_unstripped.nii.gz",
        "anat/sub-01_ce-gadolinium_T2w.nii.gz",
        "anat/sub-01_ce-gadolinium_FLAIR.nii.gz",
        "anat/sub-01_acq-postcontrast_T1w.nii.gz",
        "anat/sub-01_desc-T1ce_T1w.nii.gz",
        "anat/sub-01_acq-ce_T1w.nii.gz",
        "anat/sub-01_acq-CEMPRAGE_run-1_T1w.nii.gz",
        "anat/sub-01_rec-postgd_T1w.nii.gz",
        "anat/sub-01_acq-enhanced_T1.nii.gz",
        "anat/sub-01_label-wholeLesion_dseg.nii.gz",
        "anat/sub-01_label-SC_seg.nii.gz",
        "anat/sub-01_desc-brain_seg.nii.gz",
        "anat/sub-01_dseg.nii.gz",
        "anat/sub-brats1_space-T1w_desc-aseg_dseg.nii.gz",
        "anat/sub-01_label-ET_dseg.nii.gz",
        "anat/sub-01_ce-.nii.gz",
        "anat/sub-01_desc-brain_mask.nii.gz",
        "anat/sub-01_ce-_T1w.nii.gz",
        "sub-01/perf/sub-01_T1w.nii.gz",
        "SimBRATS_HG0001_complete_truth.mha",
        "VSD.Brain.XX.O.MR_T1.685.mha",
        "imagesTr/BRATS_001.nii.gz",
        "labelsTr/BRATS_001.nii.gz",
        "masks/patient7.nii.gz",
        "patient7/brain.nii.gz",
        "weights.h5",
    ],
)
def test_path_of_another_file_matches_no_layout(path: str) -> None:
    assert match(path) is None


def test_copies_are_warned_of_by_layout() -> None:
    (line,) = copy_warnings({"brats2018", "hdf5-slices"})
    assert line.startswith("WARNING hdf5-slices: its cases are patients of BraTS 2020 with normalised values")
    assert copy_warnings({"brats2018", "case-folders"}) == []
