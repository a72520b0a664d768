"""Configurations of a training: how long it is, what it starts from, and which options exclude each other."""

import pytest

from brats.cli.options import read_options
from brats.config import LITE0_ENCODER, LITE0_WEIGHTS, RECIPE, TrainConfig
from brats.errors import ConfigError


def test_the_weight_decay_that_stands_for_none_is_that_of_the_optimiser() -> None:
    assert TrainConfig(out="run").weight_decay == 0.01
    assert TrainConfig(out="run", optimiser="adam").weight_decay == 0
    assert TrainConfig(out="run", optimiser="adam", weight_decay=0.1).weight_decay == 0.1


def test_a_training_is_bounded_by_what_is_given_or_not_at_all() -> None:
    bounds = [{}, {"epochs": 2}, {"steps": 5}, {"minutes": 0.5}]
    configs = [TrainConfig(out="run", **bound) for bound in bounds]  # type: ignore[arg-type]
    found = [(config.epochs, config.steps, config.minutes) for config in configs]
    assert found == [(None, None, None), (2, None, None), (None, 5, None), (None, None, 0.5)]


@pytest.mark.parametrize(
    ("encoder", "weights", "used"),
    [
        (LITE0_ENCODER, "auto", LITE0_WEIGHTS),
        (LITE0_ENCODER, "none", None),
        (LITE0_ENCODER, None, None),
        (LITE0_ENCODER, "None", None),
        ("resnet34", "auto", None),
        ("resnet34", "none", None),
        ("resnet34", "imagenet", "imagenet"),
    ],
)
def test_an_encoder_begins_with_the_weights_that_are_installed_for_it_or_those_named(
    encoder: str, weights: str | None, used: str | None
) -> None:
    assert TrainConfig(out="run", encoder=encoder, encoder_weights=weights).encoder_weights == used


def test_a_training_from_another_model_takes_no_pretrained_weights() -> None:
    assert TrainConfig(out="run", init="/model").encoder_weights is None
    assert TrainConfig(out="run", init="/model", encoder_weights="none").encoder_weights is None


def test_the_recipe_is_no_option_and_cannot_be_given() -> None:
    assert TrainConfig(out="run").recipe == RECIPE
    assert "recipe" not in {option.name for option in read_options(TrainConfig)}
    with pytest.raises(TypeError, match="recipe"):
        TrainConfig(out="run", recipe=1)


def test_a_cross_validation_deals_its_own_folds() -> None:
    with pytest.raises(ConfigError, match=r"^--cross-validation and --fold exclude each other"):
        TrainConfig(out="run", cross_validation=3, fold=0)
    with pytest.raises(ConfigError, match=r"^--cross-validation must be at least 2, not 1$"):
        TrainConfig(out="run", cross_validation=1)


def test_a_triplanar_run_has_no_plane_of_its_own_and_keeps_cases_in_memory() -> None:
    with pytest.raises(ConfigError, match=r"^--plane and --triplanar exclude each other"):
        TrainConfig(out="run", triplanar=True, plane="coronal")
    with pytest.raises(ConfigError, match=r"^--triplanar: .*leave --feeding streamed out$"):
        TrainConfig(out="run", triplanar=True, feeding="streamed")
