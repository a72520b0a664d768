"""Values of options that several jobs have."""

from typing import get_args

from brats.config import COMPARED_PRESETS, HDF5_CHANNELS, HDF5_SPACING_MM, MODALITIES, PresetName


def test_channels_of_hdf5_slices_are_each_modality_once() -> None:
    assert sorted(HDF5_CHANNELS) == sorted(MODALITIES)
    assert len(HDF5_SPACING_MM) == 3


def test_presets_compared_are_presets_each_once() -> None:
    assert set(COMPARED_PRESETS) < set(get_args(PresetName))
    assert len(set(COMPARED_PRESETS)) == len(COMPARED_PRESETS)
