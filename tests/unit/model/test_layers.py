"""The stages of networks and the shapes that they give."""

from dataclasses import replace

from brats.config import CLASSIC_UNET
from brats.model.layers import architecture
from tests.support.bundles import MODEL_CARD

SIZE = (64, 32)


def test_a_u_net_has_the_stages_of_its_encoder_and_its_decoder() -> None:
    found = architecture(MODEL_CARD, SIZE)
    parts = [layer.part for layer in found.layers]
    assert parts == ["input", *["encoder"] * 5, *["decoder"] * 5, "output"]
    assert found.layers[0].shape == (2, 64, 32)
    assert [layer.shape[1:] for layer in found.layers[1:6]] == [(32, 16), (16, 8), (8, 4), (4, 2), (2, 1)]
    assert [layer.shape for layer in found.layers[6:11]] == [
        (8, 4, 2), (8, 8, 4), (8, 16, 8), (8, 32, 16), (8, 64, 32)
    ]  # fmt: skip
    assert found.layers[-1].shape == (3, 64, 32)


def test_the_classic_u_net_has_its_levels_down_and_up() -> None:
    card = replace(MODEL_CARD, encoder=CLASSIC_UNET, decoder_channels=(16, 8, 4))
    found = architecture(card, (16, 8))
    assert [(layer.name, layer.shape) for layer in found.layers] == [
        ("slice", (2, 16, 8)),
        ("level 1", (4, 16, 8)),
        ("level 2", (8, 8, 4)),
        ("level 3", (16, 4, 2)),
        ("level 2", (8, 8, 4)),
        ("level 1", (4, 16, 8)),
        ("logits", (3, 16, 8)),
    ]


def test_all_weights_are_counted() -> None:
    card = replace(MODEL_CARD, encoder=CLASSIC_UNET, decoder_channels=(2, 1))
    down = (2 * 9 + 1) + (9 + 1) + (2 * 9 + 2) + (2 * 2 * 9 + 2)
    up = (2 * 4 + 1) + (2 * 9 + 1) + (9 + 1)
    assert architecture(card, (16, 8)).n_parameters == down + up + (3 + 3)
