"""A model bundle of an untrained network, for what predicts."""

from pathlib import Path

from brats.model.bundle import ModelCard, save_bundle
from tests.support.prepared import CONFIG, INPUTS, undecided_network


def save_undecided_bundle(folder: Path) -> Path:
    """A bundle whose masks hold every label, so that nothing is trivially empty; returns its folder."""
    card = ModelCard(
        encoder=CONFIG.encoder,
        decoder_channels=CONFIG.decoder_channels,
        inputs=INPUTS,
        epoch=1,
        val_dice=0.5,
        trained_on={},
    )
    save_bundle(str(folder), undecided_network().state_dict(), card)
    return folder
