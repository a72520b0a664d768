"""A model bundle of an untrained network, for what predicts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from brats.model.bundle import ModelCard, save_bundle
from tests.support.prepared import CONFIG, INPUTS, undecided_network

MODEL_CARD = ModelCard(
    encoder=CONFIG.encoder,
    decoder_channels=CONFIG.decoder_channels,
    inputs=INPUTS,
    epoch=3,
    val_dice=0.75,
    trained_on={"case": {"patient_id": "p", "voxel_hash": "h"}},
)


def save_undecided_bundle(folder: Path, trained_on: Sequence[str] = ()) -> Path:
    """A bundle whose masks hold every label, so that nothing is trivially empty; returns its folder.

    trained_on: ids of cases that it was trained on, known by them alone
    """
    known = {case_id: {"patient_id": case_id, "voxel_hash": ""} for case_id in trained_on}
    save_bundle(str(folder), undecided_network().state_dict(), replace(MODEL_CARD, trained_on=known))
    return folder
