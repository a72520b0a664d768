"""The network's input: normalised as plain numpy does it, and the same numbers in training and in prediction."""

import dataclasses
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from brats.config import Augmentation, ExtraChannel, Modality, Plane
from brats.data.batches import InputSpec
from brats.data.case import Case
from brats.data.epoch import PlannedBatch
from brats.data.planes import in_plane
from brats.errors import CaseError
from brats.model.augment import noise_table
from brats.model.inputs import RawCase, extra_channel, normalise, training_tensors
from tests.support.prepared import (
    CONFIG,
    CPU,
    INPUTS,
    MODALITIES,
    SIZE,
    plan,
    raw_slices,
    resident_feed,
    step_inputs,
    stream_feed,
    tiny_case,
    worker_batch,
    write_prepared,
)

pytestmark = pytest.mark.usefixtures("one_thread")

NOISE = noise_table(CONFIG.seed, CPU)


@dataclasses.dataclass(frozen=True)
class Data:
    prepared: str
    paths: list[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    prepared = str(tmp_path_factory.mktemp("prepared"))
    return Data(prepared, write_prepared(prepared, [tiny_case(f"train{seed}", seed=seed) for seed in range(3)]))


# The arithmetic


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_normalise_equals_plain_numpy_and_the_background_is_zero(dtype: type, tolerant: bool) -> None:
    random = np.random.default_rng(0)
    raw: npt.NDArray[Any] = random.integers(-50, 50, (2, 3, 8, 6)).astype(dtype)
    offset, scale = random.normal(size=(2, 2, 3)).astype(np.float32) + 5
    background = np.array([[0, 0, -7], [0, 3, 0]], np.float32)
    tolerance = np.array([[0, 1, 2.5], [0, 0, 1]], np.float32) * tolerant
    expected = np.zeros(raw.shape, np.float32)
    for b, c, h, w in np.ndindex(raw.shape):
        if abs(raw[b, c, h, w] - background[b, c]) > tolerance[b, c]:
            expected[b, c, h, w] = (raw[b, c, h, w] - offset[b, c]) / scale[b, c]
    assert 0 < (expected == 0).sum() < expected.size / 10
    columns = (torch.from_numpy(column) for column in (offset, scale, background, tolerance))
    values = normalise(torch.from_numpy(raw), *columns)
    assert values.dtype == torch.float32
    assert values.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_normalise_leaves_the_raw_values_alone() -> None:
    raw = torch.ones(1, 1, 2, 2)
    column = torch.full((1, 1), 1.0)
    normalise(raw, column, column, column, column)
    assert torch.equal(raw, torch.ones(1, 1, 2, 2))


def test_lowest_number_of_float32_as_background_becomes_0() -> None:
    lowest = torch.finfo(torch.float32).min
    for tolerance in (0.0, 0.5):
        columns = (torch.tensor([[number]]) for number in (5.0, 0.5, lowest, tolerance))
        values = normalise(torch.tensor([[[[lowest, 6.0, lowest, 5.0]]]]), *columns)
        assert values.flatten().tolist() == [0, 2, 0, 0]


def test_values_within_the_tolerance_of_the_background_become_0() -> None:
    columns = (torch.tensor([[number]]) for number in (20.0, 4.0, -1.0, 0.5))
    values = normalise(torch.tensor([[[[-1.75, -1.5, -1.0, -0.5, -0.25, 24.0]]]]), *columns)
    assert values.flatten().tolist() == [-5.4375, 0, 0, 0, -5.0625, 1]


# Training


def test_images_and_labels_of_a_batch_are_flipped_together(data: Data) -> None:
    """T1CE is brightest in ET and in WT flips or not: the two stay on top of each other."""
    feed = resident_feed(data.prepared, data.paths, CONFIG)
    slices = feed.slices(step_inputs(feed)[0].tensors)
    images, labels = training_tensors(slices, NOISE, "flips", INPUTS)
    et = labels == 3
    assert et.any()
    t1ce = images[:, MODALITIES.index("t1ce")]
    assert t1ce[et].min() > t1ce[~et].max() - 1
    plain = slices.labels == 3
    assert not torch.equal(et, plain)
    assert torch.equal(et.sum((1, 2)), plain.sum((1, 2)))


@pytest.mark.parametrize("kind", ["none", "flips", "full"])
def test_input_of_the_network_is_in_its_memory_format(data: Data, kind: Augmentation) -> None:
    feed = resident_feed(data.prepared, data.paths, dataclasses.replace(CONFIG, augmentation=kind))
    images, labels = training_tensors(feed.slices(step_inputs(feed)[0].tensors), NOISE, kind, INPUTS)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.uint8


def test_a_batch_of_either_feed_loses_the_modalities_that_are_drawn_for_it(data: Data) -> None:
    config = dataclasses.replace(CONFIG, augmentation="flips", modality_dropout=0.5)
    for feed in (
        resident_feed(data.prepared, data.paths, config),
        stream_feed(data.prepared, data.paths, config),
    ):
        slices = feed.slices(step_inputs(feed)[0].tensors)
        kept = slices.parameters[:, -len(MODALITIES) :]
        assert set(kept.unique().tolist()) == {0, 1}
        assert slices.parameters.shape[1] == 2 + len(MODALITIES)
        images, labels = training_tensors(slices, NOISE, "flips", INPUTS, drops=True)
        whole = dataclasses.replace(slices, parameters=slices.parameters[:, :2])
        all_images, all_labels = training_tensors(whole, NOISE, "flips", INPUTS)
        assert torch.equal(images, all_images * kept[:, :, None, None])
        assert torch.equal(labels, all_labels)
        assert images.is_contiguous(memory_format=torch.channels_last)


# Whole cases


def tensor_of(case: Case, spec: InputSpec = INPUTS, batch_size: int = 4) -> Tensor:
    return torch.cat(list(RawCase.of(case, spec, pinned=False).batches(batch_size)))


def normalised(case: Case, name: str) -> npt.NDArray[Any]:
    """An image of the case as plain numpy normalises it."""
    image = case.images[name].astype(np.float64)
    brain = image != case.intensities[name].background
    return np.where(brain, (image - image[brain].mean()) / image[brain].std(), 0)


def test_the_slices_of_a_case_come_normalised_in_the_order_of_the_channels_and_zero_in_the_padding() -> None:
    case, order = tiny_case(), tuple(reversed(MODALITIES))
    seen = tensor_of(case, InputSpec(modalities=order)).numpy()
    n_slices, height, width = case.images["flair"].shape
    assert (height, width) == (40, 36)
    assert seen.shape == (n_slices, 2, 64, 64)
    for channel, name in enumerate(order):
        np.testing.assert_allclose(seen[:, channel, :height, :width], normalised(case, name), atol=1e-4)
    assert not seen[:, :, height:].any()
    assert not seen[:, :, :, width:].any()


def test_an_image_whose_background_is_not_zero_is_padded_with_its_background() -> None:
    case = tiny_case(dtypes={"flair": np.float32})
    flair = case.intensities["flair"]
    case = dataclasses.replace(
        case,
        images={**case.images, "flair": case.images["flair"] - 7},
        intensities={
            **case.intensities,
            "flair": dataclasses.replace(flair, background=-7.0, mean=flair.mean - 7),
        },
    )
    seen = tensor_of(case).numpy()
    np.testing.assert_allclose(seen[:, 0, :40, :36], normalised(case, "flair"), atol=1e-4)
    assert not seen[:, :, 40:].any()


def test_the_divisor_is_that_of_the_input() -> None:
    assert tensor_of(tiny_case(), InputSpec(modalities=MODALITIES, divisor=8)).shape == (10, 2, 40, 40)


def test_slices_come_in_batches_in_the_memory_format_of_the_network() -> None:
    batches = list(RawCase.of(tiny_case(), INPUTS, pinned=False).batches(4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in batches)


def test_a_missing_modality_is_named_and_one_that_is_not_wanted_left_out() -> None:
    with pytest.raises(CaseError, match="no t1 and no t2; the case has flair, t1ce"):
        tensor_of(tiny_case(), InputSpec(modalities=("flair", "t1", "t2")))
    only = tensor_of(tiny_case(), InputSpec(modalities=("t1ce",)))
    assert torch.equal(only, tensor_of(tiny_case())[:, 1:])


# Planes, neighbours and computed channels


THREE: tuple[Modality, ...] = ("flair", "t1ce", "t1")
RICH = InputSpec(modalities=THREE, context=1, extra=("t1ce-t1", "foreground"))


def rich_case(case_id: str = "case", seed: int = 0) -> Case:
    """A case of three modalities, of another size along each axis."""
    case = tiny_case(case_id, seed=seed)
    t1 = np.random.default_rng(seed).normal(300, 50, case.images["flair"].shape).astype(np.int16)
    t1[:, :4] = 0
    inside = t1[t1 != 0]
    intensity = dataclasses.replace(
        case.intensities["flair"], dtype=t1.dtype.str, mean=float(inside.mean()), std=float(inside.std())
    )
    return dataclasses.replace(
        case, images={**case.images, "t1": t1}, intensities={**case.intensities, "t1": intensity}
    )


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_slices_of_a_plane_are_cut_from_the_whole_case(plane: Plane) -> None:
    case = tiny_case()
    seen = tensor_of(case, InputSpec(modalities=MODALITIES, plane=plane)).numpy()
    for channel, name in enumerate(MODALITIES):
        expected = in_plane(normalised(case, name), plane)
        n_slices, height, width = expected.shape
        assert seen.shape[0] == n_slices
        np.testing.assert_allclose(seen[:, channel, :height, :width], expected, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
@pytest.mark.parametrize("context", [1, 2])
def test_neighbours_in_a_case_are_the_slices_before_and_after_and_0_beyond_the_ends(
    context: int, batch_size: int
) -> None:
    case = tiny_case()
    alone = tensor_of(case)
    depth = 2 * context + 1
    seen = tensor_of(case, InputSpec(modalities=MODALITIES, context=context), batch_size)
    assert seen.shape == (10, 2 * depth, 64, 64)
    for row in range(10):
        for channel in range(2 * depth):
            neighbour = row + channel % depth - context
            expected = alone[neighbour, channel // depth] if 0 <= neighbour < 10 else torch.zeros(64, 64)
            assert torch.equal(seen[row, channel], expected)


def test_computed_channels_are_the_foreground_and_the_difference_of_the_slice_itself() -> None:
    case = rich_case()
    seen = tensor_of(case, RICH).numpy()
    assert seen.shape == (10, 3 * 3 + 2, 64, 64)
    inside = seen[..., :40, :36]
    difference = normalised(case, "t1ce") - normalised(case, "t1")
    np.testing.assert_allclose(inside[:, -2], difference, atol=1e-4)
    foreground = np.any([image != case.intensities[name].background for name, image in case.images.items()], axis=0)
    assert 0 < foreground.mean() < 1
    np.testing.assert_array_equal(inside[:, -1], foreground)
    assert not seen[:, -1, 40:].any()


def test_a_channel_that_nothing_computes_is_refused() -> None:
    with pytest.raises(ValueError, match="'t2-t1' is no computed channel"):
        extra_channel("t2-t1", torch.zeros(1, 9, 4, 4), RICH)


@pytest.mark.parametrize("name", get_args(ExtraChannel))
def test_every_option_of_computed_channels_has_its_arithmetic(name: str) -> None:
    assert extra_channel(name, torch.ones(2, 9, 4, 5), RICH).shape == (2, 1, 4, 5)


@pytest.mark.parametrize("kind", ["none", "flips", "full"])
def test_computed_channels_follow_the_augmented_slice(kind: Augmentation, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, modalities=THREE, augmentation=kind, context=1, extra_channels=RICH.extra)
    feed = resident_feed(str(tmp_path), write_prepared(str(tmp_path), [rich_case()]), config)
    images, _ = training_tensors(feed.slices(step_inputs(feed)[0].tensors), NOISE, kind, RICH)
    assert images.is_contiguous(memory_format=torch.channels_last)
    middle = images[:, 1:9:3]
    assert torch.equal(images[:, -2], middle[:, 1] - middle[:, 2])
    assert torch.equal(images[:, -1], (middle != 0).any(1).float())


def test_a_dropped_modality_is_0_in_all_its_slices_and_for_the_computed_channels(tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG,
        modalities=THREE,
        augmentation="full",
        modality_dropout=0.5,
        context=1,
        extra_channels=RICH.extra,
    )
    feed = resident_feed(str(tmp_path), write_prepared(str(tmp_path), [rich_case()]), config)
    slices = feed.slices(step_inputs(feed)[0].tensors)
    images, _ = training_tensors(slices, NOISE, "full", RICH, drops=True)
    kept = slices.parameters[:, -3:].bool()
    assert kept.any()
    assert not kept.all()
    assert torch.equal(images[:, :9].unflatten(1, (3, 3)).flatten(2).any(2), kept)
    assert torch.equal(images[:, -2], images[:, 4] - images[:, 7])
    assert torch.equal(images[:, -1].bool(), (images[:, 1:9:3] != 0).any(1))


# Training and prediction


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_training_and_prediction_show_the_same_neighbours_and_computed_channels(
    tmp_path: Path, plane: Plane
) -> None:
    cases = {name: rich_case(name, seed) for seed, name in enumerate("ab")}
    paths = write_prepared(str(tmp_path), list(cases.values()))
    spec = dataclasses.replace(RICH, plane=plane)
    config = dataclasses.replace(
        CONFIG,
        modalities=THREE,
        augmentation="none",
        plane=plane,
        context=1,
        extra_channels=RICH.extra,
        tumour_free_ratio=100,  # all slices, those at the ends too
    )
    feed = resident_feed(str(tmp_path), paths, config)
    whole = {name: tensor_of(case, spec, 3) for name, case in cases.items()}
    seen = set()
    for step, planned in zip(feed.epoch(1), plan(paths, config, 1), strict=True):
        images, _ = training_tensors(feed.slices(step.tensors), NOISE, "none", spec)
        for image, (name, row) in zip(images, planned.slices, strict=True):
            assert torch.equal(image, whole[name][row])
            seen.add(row)
    assert seen == set(range(len(whole["a"])))


@pytest.mark.parametrize("batch_size", [1, 64])
def test_training_and_prediction_show_the_network_the_same_numbers_for_the_same_slice(
    tmp_path: Path, batch_size: int
) -> None:
    """Bit for bit, though a training batch may be of another number type than the case."""
    cases = {
        "a": tiny_case("a", seed=1),
        "b": tiny_case("b", seed=2, dtypes={"flair": np.float32}),
        "c": tiny_case("c", seed=3, dtypes={"t1ce": np.uint16}),
    }
    write_prepared(str(tmp_path), list(cases.values()))
    rows = [("a", 0), ("b", 4), ("a", 5), ("c", 9), ("b", 5)]
    batch = worker_batch(str(tmp_path), PlannedBatch(epoch=1, step=0, slices=tuple(rows)), 0, 1)
    assert batch.slices.images.dtype == np.float32
    assert SIZE == (64, 64)
    images, seen = training_tensors(raw_slices(batch), NOISE, "none", INPUTS)
    whole = {name: tensor_of(case, batch_size=batch_size) for name, case in cases.items()}
    for position, (name, row) in enumerate(rows):
        assert torch.equal(images[position], whole[name][row])
        labels = cases[name].labels
        assert labels is not None
        np.testing.assert_array_equal(seen[position, :40, :36].numpy(), labels[row])
