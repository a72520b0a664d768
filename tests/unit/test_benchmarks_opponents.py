"""The opponents written with MONAI: their transforms, schedule and choice of the best, on tiny cases."""

import dataclasses
import itertools
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support import ROOT

sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks import opponents
from benchmarks.generated import generate_dataset
from benchmarks.harness import peer_module
from benchmarks.opponents import (
    Loop,
    averaged,
    full_transforms,
    rate_at,
    same_recipe,
    simple_transforms,
    users_script,
)
from benchmarks.plain import Job
from benchmarks.recipe_folds import folds_of, labelled, split_of_fold
from benchmarks.recipe_trials import score
from brats.config import TrainConfig
from brats.data.dataset import slices_path
from brats.data.run_split import SplitRow

SHAPE = (36, 34, 8)
NAMES = ("flair", "t1", "t1ce", "t2")


@pytest.fixture(scope="module", autouse=True)
def _monai() -> None:
    """MONAI imported: it uses what torch has deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for room in ("data", "losses", "transforms"):
            peer_module(f"monai.{room}")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return generate_dataset(tmp_path_factory.mktemp("prepared"), 6, SHAPE)


@pytest.fixture(scope="module")
def split(data: str) -> list[SplitRow]:
    rows = labelled(data)
    return split_of_fold(rows, folds_of(rows, 2), 0)


@pytest.fixture
def config(data: str) -> TrainConfig:
    return TrainConfig(
        data=data, out="run", encoder="tu-test_resnet", decoder_channels=(8, 8, 8, 8, 8), batch_size=8, steps=3
    )


@pytest.fixture
def _untracked() -> Iterator[None]:
    """Plain tensors, as the opponents use them."""
    data = peer_module("monai.data")
    data.set_track_meta(False)
    yield
    data.set_track_meta(True)


def item() -> dict[str, torch.Tensor]:
    """A slice whose modalities are brain in their left half."""
    brain = torch.zeros(1, 32, 32)
    brain[:, :, :16] = 1
    random = torch.Generator().manual_seed(0)
    images = {name: torch.randn(1, 32, 32, generator=random) * brain for name in NAMES}
    return {**images, "brain": brain, "label": 2 * brain}


@pytest.mark.usefixtures("_untracked")
def test_simple_transforms_give_images_and_labels_of_the_same_place() -> None:
    compose = peer_module("monai.transforms").Compose(simple_transforms(NAMES)).set_random_state(seed=0)
    for _ in range(5):
        found = compose(item())
        assert found["image"].shape == (4, 32, 32)
        assert set(found["label"].unique().tolist()) <= {0.0, 2.0}


@pytest.mark.usefixtures("_untracked")
def test_full_transforms_leave_the_background_at_0_and_labels_whole() -> None:
    compose = peer_module("monai.transforms").Compose(full_transforms(NAMES)).set_random_state(seed=0)
    for _ in range(20):
        found = compose(item())
        assert found["image"].shape == (4, 32, 32)
        assert not found["image"][:, found["brain"][0] == 0].any()
        assert torch.equal(found["label"], 2 * found["brain"])  # warped alike


@pytest.mark.usefixtures("_untracked")
def test_full_transforms_change_every_modality_by_itself() -> None:
    alike = {**item(), **dict.fromkeys(NAMES, item()["flair"])}
    compose = peer_module("monai.transforms").Compose(full_transforms(NAMES)).set_random_state(seed=0)
    changed = [compose(alike)["image"] for _ in range(10)]
    assert any(not torch.equal(images[0], images[1]) for images in changed)


def test_rate_warms_up_and_then_follows_half_a_cosine(config: TrainConfig) -> None:
    given = dataclasses.replace(config, warmup_steps=10, learning_rate=1.0)
    assert rate_at(given, 4, 0.0) == pytest.approx(0.5)
    assert rate_at(given, 50, 0.5) == pytest.approx(0.5)
    assert rate_at(given, 99, 1.0) == pytest.approx(0.0)


@pytest.mark.parametrize(("n_before", "decay"), [(1, 2 / 11), (1000, 0.75)])
def test_average_moves_by_its_share_of_the_way_which_is_large_at_first(n_before: int, decay: float) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(0)
        average = averaged(network, 0.75)
        average.update_parameters(network)  # the first is taken as it is
        average.n_averaged.fill_(n_before)
        network.weight.fill_(1)
        average.update_parameters(network)
    assert math.isclose(average.module.get_parameter("weight").item(), 1 - decay, rel_tol=1e-6)


def test_slices_are_normalised_and_padded(split: list[SplitRow], config: TrainConfig) -> None:
    job = Job.of_split(config, split, "cpu")
    name = job.data.plan.cases[0].case_id
    images = opponents.normalised(job.data, name)
    assert images.shape == (SHAPE[2], 4, *job.data.size)
    brain = images[images != 0]
    assert brain.mean().item() == pytest.approx(0, abs=0.05)
    assert brain.std().item() == pytest.approx(1, abs=0.05)
    assert not images[:, :, SHAPE[0] :].any()


@pytest.mark.usefixtures("one_thread", "_untracked")
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_same_recipe_trains_so_many_steps_and_segments_whole_cases(
    data: str, split: list[SplitRow], config: TrainConfig, ema: float
) -> None:
    trained = same_recipe(dataclasses.replace(config, ema=ema), split, "cpu")
    assert trained.n_steps == 3
    assert trained.slices_per_s > 0
    (tested, *_) = [row["case_id"] for row in split if row["split"] == "test"]
    assert set(score(trained, slices_path(data, tested))) == {"WT", "TC", "ET"}


@pytest.mark.usefixtures("one_thread", "_untracked")
def test_users_script_has_a_resnet34_from_random_weights_and_no_average(
    split: list[SplitRow], config: TrainConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built: list[TrainConfig] = []
    monkeypatch.setattr(opponents, "_train", lambda given, *_: built.append(given))
    users_script(dataclasses.replace(config, out=str(tmp_path)), split, "cpu")
    assert [(given.encoder, given.encoder_weights, given.ema) for given in built] == [("resnet34", None, 0.0)]


@pytest.mark.usefixtures("one_thread", "_untracked")
def test_best_of_the_validations_is_kept(
    split: list[SplitRow], config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    dice = iter([0.1, 0.9, 0.2])

    def validated(loop: Loop, _cases: object) -> float:
        seen.append({name: value.clone() for name, value in loop.segmenter.network.state_dict().items()})
        return next(dice)

    monkeypatch.setattr(Loop, "dice", validated)
    loop = Loop.of(config, split, "cpu")
    batch = {"image": torch.randn(4, 4, 64, 64), "label": torch.ones(4, 1, 64, 64)}
    loop.run(itertools.repeat(batch))
    assert len(seen) == 3  # after each of three steps
    kept = loop.segmenter.network.state_dict()
    assert [all(torch.equal(kept[name], value) for name, value in state.items()) for state in seen] == [
        False,
        True,
        False,
    ]
