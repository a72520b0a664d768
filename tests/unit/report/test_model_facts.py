"""What a page shows of a model."""

from dataclasses import replace
from pathlib import Path

import pytest

from brats import storage
from brats.data.dataset import slices_path
from brats.model.bundle import bundle_dir
from brats.report.findings import Findings, read_findings
from brats.report.model_facts import N_SAMPLES, find_card, network_drawing, read_samples
from tests.support.bundles import MODEL_CARD
from tests.support.reports import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return read_findings(write_run(tmp_path_factory.mktemp("run") / "run", ()))


def test_the_card_is_that_of_the_run(run: Findings) -> None:
    assert find_card(run) == MODEL_CARD


def test_the_card_of_predictions_is_that_of_the_model_they_name(run: Findings) -> None:
    assert find_card(Findings(folder="/out", config={"model": run.folder})) == MODEL_CARD


def test_a_model_that_is_not_there_has_no_card(tmp_path: Path) -> None:
    assert find_card(Findings(folder="/out", config={"model": str(tmp_path)})) is None
    assert find_card(Findings(folder="/out")) is None


def test_an_unfinished_run_has_no_card(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ())
    storage.remove(bundle_dir(run))
    assert find_card(read_findings(run)) is None


def test_the_network_is_drawn_for_the_slices_of_the_run(run: Findings) -> None:
    html = network_drawing(MODEL_CARD, run)
    assert "64 x 64" in html  # crops of 50 x 42
    assert "160 x 192" in network_drawing(MODEL_CARD, replace(run, split=()))


def test_samples_are_of_a_training_case(run: Findings) -> None:
    samples = read_samples(MODEL_CARD, run)
    assert samples is not None
    assert samples.case_id == "trained_on"
    assert samples.modalities == ("flair", "t1ce")
    assert samples.normalised.shape == (2, 50, 42)
    assert samples.augmented.shape == (N_SAMPLES, 2, 50, 42)


def test_without_augmentation_there_are_preprocessed_slices_alone(run: Findings) -> None:
    samples = read_samples(MODEL_CARD, replace(run, config={**run.config, "augmentation": "none"}))
    assert samples is not None
    assert len(samples.augmented) == 0


def test_predictions_have_no_training_case(run: Findings) -> None:
    assert read_samples(MODEL_CARD, replace(run, split=())) is None


def test_a_training_case_that_has_gone_is_named(tmp_path: Path) -> None:
    found = read_findings(write_run(tmp_path / "run", ()))
    storage.remove(slices_path(found.data, "trained_on"))
    with pytest.raises(FileNotFoundError, match="trained_on"):
        read_samples(MODEL_CARD, found)
