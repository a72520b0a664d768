"""What the recipe is held against: training written with MONAI, on the same slices and for as long.

One is what a user writes in an evening, after MONAI's tutorials. The other has every ingredient of the default
recipe: encoder and weights, augmentation, averaged weights, schedule and choice of the best. Both are given their
slices cropped, normalised and in memory before the clock starts.

Axes: `B` slices of a batch, `C` modality, `R` region (WT, TC, ET), `Z H W` slices of a crop.
"""

import copy
import dataclasses
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.harness import peer_module
from benchmarks.plain import Job, worker_device
from benchmarks.recipe_trials import Trained, dice_of, tuned
from brats.config import TrainConfig
from brats.data.batches import TrainingSet
from brats.data.case import Case
from brats.data.dataset import slices_path
from brats.data.run_split import SplitRow
from brats.data.slices import open_slices
from brats.labels import Labels
from brats.model.average import decay_at
from brats.model.inference import BATCH_SIZES, Segmenter
from brats.model.inputs import RawCase
from brats.model.losses import region_targets
from brats.model.precision import autocast, choose_precision
from brats.model.schedule import half_cosine
from brats.model.unet import build_unet

N_VALIDATIONS = 10  # over a run, evenly; each counts as time of training
ROTATION, SCALE, SHIFT = math.pi / 6, (-0.25, 0.3), 5  # of the default recipe; MONAI adds 1 to the scale
Item = dict[str, Tensor]


def users_script(config: TrainConfig, split: Sequence[SplitRow], device: str) -> Trained:
    """A resnet34 U-Net from random weights, with the transforms of MONAI's tutorials."""
    plain = dataclasses.replace(config, encoder="resnet34", encoder_weights="none", ema=0.0, tune=False)
    return _train(plain, split, device, simple_transforms(config.modalities))


def same_recipe(config: TrainConfig, split: Sequence[SplitRow], device: str) -> Trained:
    """All that the default recipe has."""
    return _train(config, split, device, full_transforms(config.modalities))


def simple_transforms(names: Sequence[str]) -> list[Any]:
    """Of MONAI's tutorials on brain tumours, with the affine transform that its users add."""
    transforms = peer_module("monai.transforms")
    return [
        transforms.ConcatItemsd(names, "image"),
        *_flips(["image", "label"]),
        _affine(["image", "label"], ["bilinear", "nearest"], probability=0.5),
        transforms.RandScaleIntensityd("image", factors=0.1, prob=1.0),
        transforms.RandShiftIntensityd("image", offsets=0.1, prob=1.0),
    ]


def full_transforms(names: Sequence[str]) -> list[Any]:
    """The transforms of MONAI that are nearest to `brats.model.augment`, as often and as strong."""
    transforms = peer_module("monai.transforms")
    everything = [*names, "brain", "label"]
    modes = ["bilinear"] * len(names) + ["nearest"] * 2
    elastic = transforms.Rand2DElasticd(
        everything, spacing=(40, 40), magnitude_range=(1, 3), prob=0.1, mode=modes, padding_mode="zeros"
    )
    intensities = [transform for name in names for transform in _intensities(name)]
    return [
        *_flips(everything),
        _affine(everything, modes, probability=1 - 0.7**4),  # that one at least of four applies, each at 0.3
        elastic,
        *intensities,
        transforms.MaskIntensityd(names, mask_key="brain"),
        transforms.ConcatItemsd(names, "image"),
    ]


def _flips(keys: Sequence[str]) -> list[Any]:
    transforms = peer_module("monai.transforms")
    return [transforms.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in (0, 1)]


def _affine(keys: Sequence[str], modes: Sequence[str], *, probability: float) -> Any:
    return peer_module("monai.transforms").RandAffined(
        keys,
        prob=probability,
        rotate_range=ROTATION,
        scale_range=(SCALE, SCALE),
        translate_range=SHIFT,
        mode=modes,
        padding_mode="zeros",
    )


def _intensities(name: str) -> list[Any]:
    """Of one modality: gain, shift, gamma, bias field, blur, half the resolution, noise."""
    transforms = peer_module("monai.transforms")
    return [
        transforms.RandScaleIntensityd(name, factors=0.3, prob=0.3),
        transforms.RandShiftIntensityd(name, offsets=0.3, prob=0.3),
        transforms.RandAdjustContrastd(name, gamma=(0.6, 1.5), prob=0.3),
        transforms.RandBiasFieldd(name, coeff_range=(0.0, 0.2), prob=0.3),
        transforms.RandGaussianSmoothd(name, sigma_x=(0.5, 0.8), sigma_y=(0.5, 0.8), prob=0.15),
        transforms.RandSimulateLowResolutiond(
            name, zoom_range=(0.5, 0.5), downsample_mode="area", upsample_mode="bilinear", prob=0.1
        ),
        transforms.RandGaussianNoised(name, std=0.3, prob=0.2),
    ]


def _train(config: TrainConfig, split: Sequence[SplitRow], device: str, transform: list[Any]) -> Trained:
    """Train for the steps or minutes of the configuration; the best of its validations is the result."""
    loop = Loop.of(config, split, device)
    batches = _batches(loop.job, transform)
    first = next(batches)  # now, so that processes are there when the clock starts
    n_steps, slices_per_s = loop.run(itertools.chain([first], batches))
    if config.tune:
        loop = dataclasses.replace(loop, segmenter=tuned(loop.segmenter, split, loop.job.data.prepared))
    return Trained(labels=loop.labels, modalities=config.modalities, n_steps=n_steps, slices_per_s=slices_per_s)


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """A moving average of the weights and BatchNorm statistics of a network, as torch has it, of our decay."""

    def follow(averages: Any, present: Any, _: object) -> None:
        # A GPU would be waited for to read the count that is passed; this one is on the CPU.
        get_ema_multi_avg_fn(decay_at(int(average.n_averaged), decay))(averages, present, None)

    average = AveragedModel(network, multi_avg_fn=follow, use_buffers=True)
    return average


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A training under way.

    average:   of the weights, None where none is kept
    segmenter: of the network that is validated, the average where one is kept
    """

    job: Job
    network: nn.Module
    average: AveragedModel | None
    segmenter: Segmenter

    @classmethod
    def of(cls, config: TrainConfig, split: Sequence[SplitRow], device_type: str) -> Self:
        """The training of a configuration before its first step."""
        torch.manual_seed(config.seed)
        device = worker_device(device_type, 0)
        job = Job.of_split(config, split, device_type)
        network = build_unet(
            encoder=config.encoder,
            n_channels=job.data.inputs.n_channels,
            decoder_channels=config.decoder_channels,
            encoder_weights=config.encoder_weights,
        ).to(device)
        average = averaged(network, config.ema) if config.ema else None
        segmenter = Segmenter(
            network=average.module if average else network,
            inputs=job.data.inputs,
            device=device,
            precision=choose_precision(config.precision, device),
        )
        return cls(job=job, network=network, average=average, segmenter=segmenter)

    def labels(self, case: Case) -> Labels:
        """The label map (Z, H, W) of a case."""
        self.segmenter.network.eval()
        return self.segmenter.labels(case, BATCH_SIZES[self.segmenter.device.type])

    def run(self, batches: Iterator[Item]) -> tuple[int, float]:
        """Train to the end and load the best weights; return the steps, and slices per second of training alone."""
        config, cases, step = self.job.config, self._validation_cases(), self._step_function()
        best, best_dice, n_validated, validating_s, n_slices = None, -1.0, 0, 0.0, 0
        started = time.monotonic()
        for number in itertools.count():
            progress = _progress(config, number, time.monotonic() - started)
            if progress * N_VALIDATIONS >= n_validated + 1 or progress >= 1:
                wait_for(self.segmenter.device)
                began, n_validated = time.monotonic(), int(progress * N_VALIDATIONS)
                if (dice := self.dice(cases)) > best_dice:
                    best, best_dice = copy.deepcopy(self.segmenter.network.state_dict()), dice
                validating_s += time.monotonic() - began
            if progress >= 1:
                break
            n_slices += step(next(batches), rate_at(config, number, progress))
        slices_per_s = n_slices / (time.monotonic() - started - validating_s)
        assert best is not None
        self.segmenter.network.load_state_dict(best)
        return number, slices_per_s

    def _step_function(self) -> Callable[[Item, float], int]:
        """What takes an optimiser step on a batch at a learning rate; it returns the slices."""
        config, device, precision = self.job.config, self.segmenter.device, self.segmenter.precision
        dice_loss = peer_module("monai.losses").DiceLoss(sigmoid=True, batch=True)
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay or 0.0, fused=True
        )
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

        def step(batch: Item, rate: float) -> int:
            for group in optimiser.param_groups:
                group["lr"] = rate
            images = batch["image"].to(device, non_blocking=True, memory_format=torch.channels_last)
            targets = region_targets(batch["label"][:, 0].to(device, non_blocking=True).round().to(torch.uint8))
            self.network.train()
            with autocast(precision, device):
                logits = self.network(images).float()
            loss = dice_loss(logits, targets) + nn.functional.binary_cross_entropy_with_logits(logits, targets)
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
            scaler.step(optimiser)
            scaler.update()
            if self.average:
                self.average.update_parameters(self.network)
            return len(images)

        return step

    def _validation_cases(self) -> list[Case]:
        """In memory, as the slices are."""
        return [open_slices(path).read_case(self.job.config.modalities) for path in self.job.val_paths]

    def dice(self, cases: Sequence[Case]) -> float:
        """The mean over cases and regions, in 3-D."""
        return float(np.mean([list(dice_of(case, self.labels(case)).values()) for case in cases]))


def wait_for(device: torch.device) -> None:
    """Wait for what is under way on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _progress(config: TrainConfig, n_steps: int, elapsed_s: float) -> float:
    """How much of the run is done, 0 to 1."""
    return n_steps / config.steps if config.steps else elapsed_s / (60 * (config.minutes or 1))


def rate_at(config: TrainConfig, step: int, progress: float) -> float:
    """The learning rate of the default recipe: a linear warm-up under half a cosine."""
    return config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps)) * half_cosine(progress)


def _batches(job: Job, transform: list[Any]) -> Iterator[Item]:
    """The batches of the epoch plan, transformed, without end: by processes beside a GPU, at once on CPUs."""
    data, transforms = peer_module("monai.data"), peer_module("monai.transforms")
    data.set_track_meta(False)
    items, places = _items(job.data)
    plan = (
        [places[entry] for entry in planned.slices]
        for epoch in itertools.count(1)
        for planned in job.data.plan.epoch(epoch)
    )
    on_gpu = job.device == "cuda"
    dataset = data.Dataset(items, transforms.Compose(transform))  # the loader seeds it from torch's generator
    n_workers = max(1, len(os.sched_getaffinity(0)) - 1) if on_gpu else 0
    yield from data.DataLoader(dataset, batch_sampler=plan, num_workers=n_workers, pin_memory=on_gpu)


def _items(data: TrainingSet) -> tuple[list[Item], dict[tuple[str, int], int]]:
    """Every slice of the training cases: modalities, brain and label, (1, H, W) each; and where each stands."""
    items: list[Item] = []
    places: dict[tuple[str, int], int] = {}
    for training_case in data.plan.cases:
        volume = data.read_volume(training_case.case_id)
        images, labels = normalised(data, training_case.case_id), torch.from_numpy(volume.labels.copy())
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            places[training_case.case_id, row] = len(items)
            padded = nn.functional.pad(label, _padding(label, data.size))[None]
            channels = {name: image[number, None] for number, name in enumerate(data.inputs.modalities)}
            items.append({**channels, "brain": (image != 0).any(0, keepdim=True).float(), "label": padded})
    return items, places


def normalised(data: TrainingSet, case_id: str) -> Tensor:
    """Network input (Z, C, H, W) of a case, padded to the size of the training slices."""
    case = open_slices(slices_path(data.prepared, case_id)).read_case(data.inputs.modalities)
    images = torch.cat(list(RawCase.of(case, data.inputs, pinned=False).batches(BATCH_SIZES["cpu"])))
    return nn.functional.pad(images, _padding(images, data.size)).contiguous()


def _padding(tensor: Tensor, size: tuple[int, int]) -> tuple[int, int, int, int]:
    height, width = tensor.shape[-2:]
    return 0, size[1] - width, 0, size[0] - height
