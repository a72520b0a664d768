"""Augmentation on the device: each transform by hand, background and labels intact, no wait for a GPU."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import Tensor

from brats.config import Augmentation
from brats.model import augment as module
from brats.model.augment import N_NOISE, NOISE_STRIDE, augment, drop_modalities, flip, noise_table
from brats.model.augment_draw import IMAGE_COLUMNS, SLICE_COLUMNS, draw
from tests.support.prepared import CPU

pytestmark = pytest.mark.usefixtures("one_thread")

NOISE = noise_table(0, CPU)
NEUTRAL = {"h_from_h": 1.0, "w_from_w": 1.0, "gain": 1.0, "gamma": 1.0}
GOLDEN_NOISE = [1.117622, -1.3871249, -0.42657161]
SQUARE = torch.tensor([[1, 2], [3, 4]])


def parameters(values: Mapping[str, float] = MappingProxyType({}), n_channels: int = 1, channel: int = 0) -> Tensor:
    """The parameters (1, P) of one slice that change nothing, but for these, those of images for one channel."""
    assert values.keys() <= {*SLICE_COLUMNS, *IMAGE_COLUMNS}
    numbers = [values.get(name, NEUTRAL.get(name, 0)) for name in SLICE_COLUMNS]
    for number in range(n_channels):
        given = values if number == channel else {}
        numbers += [given.get(name, NEUTRAL.get(name, 0)) for name in IMAGE_COLUMNS]
    return torch.tensor([numbers])


def one(image: Tensor, **values: float) -> Tensor:
    """One augmented image (H, W)."""
    labels = torch.zeros(1, *image.shape, dtype=torch.uint8)
    images, _ = augment(image.float()[None, None], labels, parameters(values), NOISE, "full")
    return images[0, 0]


def labels_of(labels: Tensor, **values: float) -> Tensor:
    """Augmented labels (H, W)."""
    images = torch.ones(1, 1, *labels.shape)
    return augment(images, labels.to(torch.uint8)[None], parameters(values), NOISE, "full")[1][0]


def brains(n_slices: int = 8, n_channels: int = 2, size: tuple[int, int] = (32, 24)) -> tuple[Tensor, Tensor]:
    """Normalised images, a rectangle each that does not reach the border, and labels inside."""
    random = torch.Generator().manual_seed(0)
    images, labels = torch.zeros(n_slices, n_channels, *size), torch.zeros(n_slices, *size, dtype=torch.uint8)
    inner = (size[0] - 10, size[1] - 8)
    images[:, :, 4:-6, 3:-5] = torch.randn(n_slices, n_channels, *inner, generator=random)
    labels[:, 8:-12, 6:-9] = torch.randint(0, 4, (n_slices, size[0] - 20, size[1] - 15), generator=random)
    return images, labels


def drawn(n_slices: int, n_channels: int, kind: Augmentation = "full") -> Tensor:
    slices = [("case", row) for row in range(n_slices)]
    return torch.from_numpy(draw(slices, seed=0, epoch=1, n_channels=n_channels, kind=kind))


# Kinds


def test_none_returns_the_tensors_themselves() -> None:
    images, labels = brains()
    same_images, same_labels = augment(images, labels, torch.zeros(8, 0), NOISE, "none")
    assert same_images is images
    assert same_labels is labels


@pytest.mark.parametrize("axes", [(), (-2,), (-1,), (-2, -1)])
def test_flips_are_those_of_torch_bit_for_bit(axes: tuple[int, ...]) -> None:
    images, labels = brains()
    flips = torch.tensor([[-2 in axes, -1 in axes]]).float().expand(8, 2)
    flipped, flipped_labels = augment(images, labels, flips, NOISE, "flips")
    assert torch.equal(flipped, images.flip(axes))
    assert torch.equal(flipped_labels, labels.flip(axes))


def test_each_slice_is_flipped_along_its_own_axes() -> None:
    flips = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    flipped = flip(SQUARE.repeat(4, 1, 1), flips)
    assert flipped.tolist() == [[[1, 2], [3, 4]], [[3, 4], [1, 2]], [[2, 1], [4, 3]], [[4, 3], [2, 1]]]


@pytest.mark.parametrize("size", [(32, 24), (33, 25), (192, 160)])
def test_neutral_parameters_change_nothing(size: tuple[int, int]) -> None:
    images, labels = brains(2, 3, size)
    same, same_labels = augment(images, labels, parameters(n_channels=3).expand(2, -1), NOISE, "full")
    torch.testing.assert_close(same, images, rtol=0, atol=5e-5)
    assert torch.equal(same == 0, images == 0)
    assert torch.equal(same_labels, labels)


@pytest.mark.parametrize("kind", ["flips", "full"])
def test_number_types_and_shapes_stay_and_the_originals_are_left_alone(kind: Augmentation) -> None:
    images, labels = brains()
    before, labels_before = images.clone(), labels.clone()
    changed, changed_labels = augment(images, labels, drawn(8, 2, kind), NOISE, kind)
    assert (changed.dtype, changed_labels.dtype) == (torch.float32, torch.uint8)
    assert (changed.shape, changed_labels.shape) == (images.shape, labels.shape)
    assert not torch.equal(changed, images)
    assert not torch.equal(changed_labels, labels)
    assert torch.equal(images, before)
    assert torch.equal(labels, labels_before)


def test_full_augmentation_returns_the_memory_format_of_the_network() -> None:
    images, labels = brains()
    changed, _ = augment(images, labels, drawn(8, 2), NOISE, "full")
    assert changed.is_contiguous(memory_format=torch.channels_last)


def test_a_slice_is_augmented_alike_alone_and_in_any_batch() -> None:
    images, labels = brains()
    numbers = drawn(8, 2)
    together = augment(images, labels, numbers, NOISE, "full")
    for row in range(8):
        rows = slice(row, row + 1)
        alone = augment(images[rows], labels[rows], numbers[rows], NOISE, "full")
        torch.testing.assert_close(alone[0], together[0][rows], rtol=1e-5, atol=1e-5)
        assert torch.equal(alone[1], together[1][rows])


# Neighbours


def test_neighbours_of_a_slice_are_augmented_as_it_is_but_for_their_noise() -> None:
    """Three equal slices of each of two modalities, as channels."""
    images, labels = brains()
    numbers = drawn(8, 2)
    alone, _ = augment(images, labels, numbers, NOISE, "full")
    together, _ = augment(images.repeat_interleave(3, dim=1), labels, numbers, NOISE, "full")
    noisy = numbers[:, len(SLICE_COLUMNS) :].unflatten(1, (2, -1))[..., IMAGE_COLUMNS.index("noise")] != 0
    assert 0 < noisy.sum() < noisy.numel()
    for channel in range(6):
        torch.testing.assert_close(
            together[:, channel][~noisy[:, channel // 3]], alone[:, channel // 3][~noisy[:, channel // 3]]
        )
    first, second, third = (together[:, place::3][noisy] for place in range(3))
    noise = [first - second, second - third, first - third]
    assert all(difference[difference != 0].std() > 1e-3 for difference in noise)
    torch.testing.assert_close(first, alone[noisy])


# The warp


def test_a_quarter_turn_moves_the_top_to_the_right() -> None:
    labels = torch.zeros(3, 3)
    labels[0, 1] = 3
    turned = labels_of(labels, h_from_h=0, h_from_w=-1, w_from_h=1, w_from_w=0)
    assert turned.tolist() == [[0, 0, 0], [0, 0, 3], [0, 0, 0]]
    image = one(torch.tensor([[1, 5, 2], [4, 9, 6], [3, 7, 8]]), h_from_h=0, h_from_w=-1, w_from_h=1, w_from_w=0)
    torch.testing.assert_close(image, torch.tensor([[3.0, 4, 1], [7, 9, 5], [8, 6, 2]]))


def test_a_turn_keeps_distances_in_pixels_where_height_and_width_differ() -> None:
    labels = torch.zeros(8, 16)
    labels[4, 10] = 2  # 0.5 below and 2.5 right of the centre
    turned = labels_of(labels, h_from_h=0, h_from_w=-1, w_from_h=1, w_from_w=0)
    assert turned.nonzero().tolist() == [[6, 7]]  # 2.5 below and 0.5 left of it


def test_scaling_by_two_shows_the_middle_in_twice_the_size() -> None:
    labels = torch.tensor([[0, 0, 0, 0], [0, 1, 2, 0], [0, 3, 1, 0], [0, 0, 0, 0]])
    assert labels_of(labels, h_from_h=0.5, w_from_w=0.5).tolist() == [
        [1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 1, 1], [3, 3, 1, 1],
    ]  # fmt: skip
    row = one(torch.tensor([[1.0, 2, 4, 8]]), w_from_w=0.5)
    torch.testing.assert_close(row, torch.tensor([[1.75, 2.5, 3.5, 5]]))


def test_what_is_shifted_in_from_outside_is_0() -> None:
    labels = torch.tensor([[1, 2], [3, 1]])
    assert labels_of(labels, h_from_1=1).tolist() == [[3, 1], [0, 0]]
    assert labels_of(labels, w_from_1=-1).tolist() == [[0, 1], [0, 3]]
    torch.testing.assert_close(one(SQUARE, w_from_1=1), torch.tensor([[2.0, 0], [4, 0]]))


@pytest.mark.parametrize("axis", [0, 1])
def test_flips_of_the_matrix_are_those_of_torch(axis: int) -> None:
    images, labels = brains(1, 1)
    name = ("h_from_h", "w_from_w")[axis]
    torch.testing.assert_close(one(images[0, 0], **{name: -1}), images[0, 0].flip(axis), rtol=0, atol=5e-5)
    assert torch.equal(labels_of(labels[0], **{name: -1}), labels[0].flip(axis))


def test_an_elastic_warp_displaces_smoothly_by_its_strength() -> None:
    columns = torch.arange(1.0, 97).expand(128, 96)
    moved = torch.stack([one(columns, elastic=2, elastic_at=at) for at in range(0, 4000, 100)]) - columns
    moved = moved[:, 8:-8, 8:-8]
    assert moved.std().item() == pytest.approx(2, rel=0.15)
    assert moved.diff(dim=1).abs().max() < 1
    assert moved.diff(dim=2).abs().max() < 1


def test_rows_and_columns_are_displaced_differently() -> None:
    ramp = torch.arange(1.0, 65)
    rows = one(ramp[:, None].expand(64, 64), elastic=2) - ramp[:, None]
    columns = one(ramp.expand(64, 64), elastic=2) - ramp
    inside = torch.stack([rows, columns])[:, 8:-8, 8:-8].flatten(1)
    assert torch.corrcoef(inside)[0, 1].abs() < 0.8


def test_labels_are_never_mixed_and_move_with_the_images() -> None:
    labels = torch.zeros(64, 32, 32, dtype=torch.uint8)
    labels[:, 6:20, 8:24] = 3
    labels[:, 9:14, 12:18] = 1
    numbers = drawn(64, 1)
    for name in IMAGE_COLUMNS:
        numbers[:, len(SLICE_COLUMNS) + IMAGE_COLUMNS.index(name)] = NEUTRAL.get(name, 0)
    images, warped = augment(labels[:, None].float(), labels, numbers, NOISE, "full")
    assert set(warped.unique().tolist()) == {0, 1, 3}
    assert not torch.equal(warped, labels)
    agree = (images[:, 0] - warped).abs() < 1e-3
    assert agree[warped == 0].all()
    assert agree.float().mean() > 0.9  # all but the edges, which are interpolated


# Intensities


def test_gain_and_shift_are_applied_in_this_order_to_all_but_the_background() -> None:
    image = torch.tensor([[0.0, 1], [-2, 4]])
    torch.testing.assert_close(one(image, gain=1.5, shift=0.25), torch.tensor([[0, 1.75], [-2.75, 6.25]]))


def test_gamma_keeps_the_least_and_the_greatest_value() -> None:
    image = torch.tensor([[0.0, -1, 3], [1, 0, 1]])
    torch.testing.assert_close(one(image, gamma=2), torch.tensor([[0, -1, 3], [0, 0, 0.0]]), rtol=0, atol=1e-5)
    torch.testing.assert_close(one(image, gamma=0.5)[1, 0].item(), -1 + 4 * 0.5**0.5)


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_gamma_leaves_a_constant_image_alone(value: float) -> None:
    image = torch.full((4, 4), value)
    torch.testing.assert_close(one(image, gamma=1.4), image)


def test_a_bias_field_multiplies_smoothly_by_its_strength() -> None:
    image = torch.full((96, 64), 2.0)
    fields = torch.stack([one(image, field=0.2, field_at=at) for at in range(0, 4000, 100)]) / 2 - 1
    assert fields.std().item() == pytest.approx(0.2, rel=0.15)
    assert fields.mean().item() == pytest.approx(0, abs=0.03)
    assert fields.diff(dim=1).abs().max() < 0.1
    assert fields.flatten(1).std(dim=1).min() > 0.05


def test_blur_mixes_a_pixel_with_the_mean_of_its_neighbours() -> None:
    image = torch.ones(5, 5)
    image[2, 2] = 10
    torch.testing.assert_close(one(image, blur=1)[2, 2].item(), 2.0)
    torch.testing.assert_close(one(image, blur=0.5)[2, 2].item(), 6.0)
    torch.testing.assert_close(one(image, blur=0.5)[0].tolist(), [1.0] * 5)


def test_a_lower_resolution_cannot_show_a_chessboard() -> None:
    board = (torch.arange(8)[:, None] + torch.arange(6)) % 2 * 2 + 1
    torch.testing.assert_close(one(board, low_resolution=1), torch.full((8, 6), 2.0))


def test_noise_is_read_from_the_table_at_its_position() -> None:
    image = torch.ones(16, 12)
    image[3:5] = 0
    start = 7 * NOISE_STRIDE
    expected = image * (1 + 0.3 * NOISE[start : start + 16 * 12].view(16, 12))
    torch.testing.assert_close(one(image, noise=0.3, noise_at=7.9), expected, rtol=0, atol=2e-5)


def test_a_position_behind_the_end_of_the_table_is_one_from_its_beginning() -> None:
    image = torch.ones(16, 16)
    n_positions = (N_NOISE - 16 * 16) // NOISE_STRIDE + 1
    assert torch.equal(one(image, noise=0.3, noise_at=n_positions + 2), one(image, noise=0.3, noise_at=2))
    one(image, noise=0.3, noise_at=n_positions - 1)  # the last


@pytest.mark.parametrize("name", [name for name in IMAGE_COLUMNS if not name.endswith("_at")])
def test_a_transform_changes_its_modality_alone_and_leaves_the_background_0(name: str) -> None:
    images, labels = brains(1, 3)
    neutral, _ = augment(images, labels, parameters(n_channels=3), NOISE, "full")
    changed, _ = augment(images, labels, parameters({name: 0.7}, n_channels=3, channel=1), NOISE, "full")
    assert torch.equal(changed[:, ::2], neutral[:, ::2])
    assert (changed - neutral)[:, 1].abs().max() > 0.01
    assert not changed[images == 0].any()


def test_the_background_is_0_after_all_transforms_together() -> None:
    images, labels = brains(64)
    mask = (images != 0).float()
    numbers = drawn(64, 2)
    geometry = numbers.clone()
    geometry[:, len(SLICE_COLUMNS) :] = parameters(n_channels=2)[:, len(SLICE_COLUMNS) :]
    warped_mask = augment(mask, labels, geometry, NOISE, "full")[0] > 0
    changed, _ = augment(images, labels, numbers, NOISE, "full")
    assert not changed[~warped_mask].any()
    assert changed[warped_mask].bool().float().mean() > 0.99
    assert torch.isfinite(changed).all()


# Modality dropout


def test_a_dropped_modality_is_0_everywhere_and_the_others_are_as_they_were() -> None:
    images, _ = brains(2, 3)
    before = images.clone()
    dropped = drop_modalities(images, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]))
    assert torch.equal(images, before)
    assert torch.equal(dropped[0, ::2], images[0, ::2])
    assert torch.equal(dropped[1, 2], images[1, 2])
    assert not dropped[0, 1].any()
    assert not dropped[1, :2].any()


def test_all_channels_of_a_modality_are_dropped_with_it() -> None:
    images = torch.arange(1.0, 7.0).reshape(1, 6, 1, 1)
    dropped = drop_modalities(images, torch.tensor([[0.0, 1.0]]))
    assert dropped.flatten().tolist() == [0, 0, 0, 4, 5, 6]


# The table


def test_the_table_of_noise_is_standard_normal_and_of_its_seed() -> None:
    assert NOISE.shape == (N_NOISE,)
    assert NOISE.mean().item() == pytest.approx(0, abs=0.01)
    assert NOISE.std().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(noise_table(0, CPU), NOISE)
    assert not torch.equal(noise_table(1, CPU), NOISE)
    np.testing.assert_allclose(NOISE[:3].numpy(), GOLDEN_NOISE, rtol=1e-6)


# On a GPU


def test_a_gpu_which_transforms_all_images_gets_what_a_cpu_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = brains(32)
    numbers = drawn(32, 2)
    on_cpu = augment(images, labels, numbers, NOISE, "full")

    def everywhere(_: float, change: Callable[..., Tensor], images: Tensor, *others: Tensor) -> Tensor:
        return change(images, *others)

    monkeypatch.setattr(module, "_where", everywhere)
    as_on_gpu = augment(images, labels, numbers, NOISE, "full")
    torch.testing.assert_close(as_on_gpu[0], on_cpu[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(as_on_gpu[1], on_cpu[1])


@pytest.mark.parametrize("kind", ["flips", "full"])
def test_no_step_depends_on_numbers_that_lie_on_the_device(kind: Augmentation) -> None:
    """Tensors of the meta device have none, so that asking for one fails, as it does while a graph is captured."""
    images, labels = (tensor.to("meta") for tensor in brains())
    changed, changed_labels = augment(images, labels, drawn(8, 2, kind).to("meta"), NOISE.to("meta"), kind)
    assert (changed.device.type, changed.shape, changed_labels.dtype) == ("meta", images.shape, torch.uint8)
    assert drop_modalities(changed, torch.ones(8, 2, device="meta")).shape == images.shape


def test_no_random_number_of_torch_is_used() -> None:
    state = torch.random.get_rng_state()
    images, labels = brains()
    augment(images, labels, drawn(8, 2), noise_table(1, CPU), "full")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_augmenting_records_nothing_for_backpropagation() -> None:
    images, labels = brains()
    changed, _ = augment(images.requires_grad_(), labels, drawn(8, 2), NOISE, "full")
    assert not changed.requires_grad
