"""The segmenter: from a cropped case to probabilities and a label map, slice batch by slice batch.

Axes: `Z H W` slices of a crop, `B` slices of a batch, `K` channel of the network, `R` region that it predicts.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from brats.config import Precision
from brats.data.batches import InputSpec
from brats.data.case import Case
from brats.labels import REGIONS, Labels
from brats.model.bundle import load_bundle
from brats.model.fusion import for_inference
from brats.model.inputs import RawCase, in_crop_axes
from brats.model.memory import is_out_of_memory
from brats.model.outputs import REGION_OUTPUTS, OutputSpec
from brats.model.precision import autocast, choose_precision

BATCH_SIZES = {"cpu": 16, "cuda": 64}  # of a forward pass; a GPU waits for its next kernel in smaller ones
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """A network in evaluation mode, with what it takes to segment a case.

    outputs:    what the channels of the network are
    thresholds: the probability that a voxel of each region exceeds
    """

    network: nn.Module
    inputs: InputSpec
    device: torch.device
    precision: Precision
    outputs: OutputSpec = REGION_OUTPUTS
    thresholds: Sequence[float] = REGION_OUTPUTS.thresholds

    @classmethod
    def load(cls, bundle: str, device: torch.device, precision: Precision) -> Self:
        """The segmenter of a model bundle, made ready for inference alone. Raises BundleError and ConfigError."""
        network, card = load_bundle(bundle)
        precision = choose_precision(precision, device)
        network = for_inference(network, card.inputs.n_channels, precision).to(device)
        return cls(
            network=network,
            inputs=card.inputs,
            device=device,
            precision=precision,
            outputs=card.output_spec,
            thresholds=card.thresholds,
        )

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that the network predicts."""
        return self.outputs.regions

    def place(self, case: Case) -> RawCase:
        """A case on the device. Raises CaseError naming the modality that the case lacks."""
        return RawCase.of(case, self.inputs, pinned=self.device.type == "cuda").to(self.device)

    @torch.inference_mode()
    def logits(self, raw: RawCase, batch_size: int) -> Iterator[Tensor]:
        """The logits (B, K, H, W) of a case on the device in float32, slice batch by slice batch, in its plane."""
        height, width = raw.size
        for slices in raw.batches(batch_size):
            with autocast(self.precision, self.device):
                logits = self.network(slices)
            yield logits.float()[:, :, :height, :width]

    def probabilities(self, case: Case, batch_size: int) -> Tensor:
        """The probability (Z, R, H, W) of each region in each voxel, float32; errors as of `place`."""
        each = self.logits(self.place(case), batch_size)
        return in_crop_axes(torch.cat([self.outputs.probabilities(logits) for logits in each]), self.inputs)

    def labels(self, case: Case, batch_size: int) -> Labels:
        """The label map (Z, H, W) of a case; errors as of `place`. It waits for a GPU once, at the end."""
        batches = self.logits(self.place(case), batch_size)
        slices = torch.cat([self.threshold(logits) for logits in batches])
        labels: Labels = in_crop_axes(slices[:, None], self.inputs)[:, 0].contiguous().cpu().numpy()
        return labels

    def threshold(self, logits: Tensor) -> Tensor:
        """Labels (B, H, W) uint8 of logits (B, K, H, W) by the thresholds."""
        if self.outputs.kind != "classes":
            return threshold_logits(logits, self.thresholds)
        return label_map(self.outputs.probabilities(logits) > _on_device(self.thresholds, logits))


def halving(run: Callable[[int], T], batch_size: int) -> tuple[T, int]:
    """What `run` gives for a batch size, and that size: halved as often as the memory of a GPU does not suffice.

    The error of a single slice that does not fit is raised.
    """
    while True:
        try:
            return run(batch_size), batch_size
        except RuntimeError as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
        # After the `except` block, where the error and the tensors that it refers to are gone.
        torch.cuda.empty_cache()
        batch_size = -(-batch_size // 2)


def threshold_logits(logits: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Labels (B, H, W) uint8 of logits (B, R, H, W): a region is where its probability exceeds its threshold."""
    return label_map(logits > _on_device([math.log(limit / (1 - limit)) for limit in thresholds], logits))


def _on_device(limits: Sequence[float], like: Tensor) -> Tensor:
    """One limit per region, (1, R, 1, 1). Made on the device, it would wait for all that is under way there."""
    return torch.tensor(limits).to(like.device, non_blocking=True).reshape(1, -1, 1, 1)


def label_map(regions: Tensor) -> Tensor:
    """Labels (B, H, W) uint8 of region masks (B, R, H, W): ED where WT, then NCR where TC, then ET where ET.

    Masks of WT alone are one channel.
    """
    labels = torch.zeros_like(regions[:, 0], dtype=torch.uint8)
    for mask, region in zip(regions.to(torch.uint8).unbind(1), REGIONS.values(), strict=False):
        # Arithmetic instead of masks: it takes a tenth of the time on CPUs.
        labels = mask * region.label + (1 - mask) * labels
    return labels
