"""The segmenter: from a cropped case to probabilities and a label map, slice batch by slice batch.

Axes: `Z H W` slices of a crop, `B` slices of a batch, `K` channel of the network, `R` region that it predicts.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from brats.config import Precision
from brats.data.batches import InputSpec
from brats.data.case import Case
from brats.labels import Labels
from brats.model.bundle import load_bundle
from brats.model.decoding import Decoding, decode
from brats.model.fusion import for_inference
from brats.model.inputs import RawCase, in_crop_axes
from brats.model.memory import is_out_of_memory
from brats.model.outputs import REGION_OUTPUTS, OutputSpec
from brats.model.precision import autocast, choose_precision

BATCH_SIZES = {"cpu": 16, "cuda": 64}  # of a forward pass; a GPU waits for its next kernel in smaller ones
Flip = tuple[int, ...]
FLIPS: tuple[Flip, ...] = ((), (2,), (3,), (2, 3))  # axes of slices (B, C, H, W)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """A network in evaluation mode, with what it takes to segment a case.

    outputs:  what the channels of the network are
    decoding: how its probabilities become a label map
    flips:    whether probabilities are means over the four ways to flip the slices
    """

    network: nn.Module
    inputs: InputSpec
    device: torch.device
    precision: Precision
    outputs: OutputSpec = REGION_OUTPUTS
    decoding: Decoding = Decoding()
    flips: bool = False

    @classmethod
    def load(cls, bundle: str, device: torch.device, precision: Precision, *, flips: bool = False) -> Self:
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
            decoding=card.decoding,
            flips=flips,
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """What a case must have."""
        return self.inputs.modalities

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that the network predicts, in the order of its probabilities."""
        return self.outputs.regions

    def place(self, case: Case) -> RawCase:
        """A case on the device. Raises CaseError naming the modality that the case lacks."""
        return RawCase.of(case, self.inputs, pinned=self.device.type == "cuda").to(self.device)

    @torch.inference_mode()
    def logits(self, raw: RawCase, batch_size: int, flip: Flip = ()) -> Iterator[Tensor]:
        """The logits (B, K, H, W) of a case on the device in float32, slice batch by slice batch, in its plane.

        flip: axes of the slices along which the network sees them flipped
        """
        height, width = raw.size
        for slices in raw.batches(batch_size):
            with autocast(self.precision, self.device):
                logits = self.network(slices.flip(flip) if flip else slices)
            yield (logits.flip(flip) if flip else logits).float()[:, :, :height, :width]

    @torch.inference_mode()
    def probabilities(self, case: Case, batch_size: int) -> Tensor:
        """The probability (Z, R, H, W) of each region in each voxel, float32; errors as of `place`."""
        raw = self.place(case)
        flips = FLIPS if self.flips else FLIPS[:1]
        each = (self._flipped_probabilities(raw, batch_size, flip) for flip in flips)
        return in_crop_axes(functools.reduce(Tensor.add_, each).div_(len(flips)), self.inputs)

    def _flipped_probabilities(self, raw: RawCase, batch_size: int, flip: Flip) -> Tensor:
        return torch.cat(
            [self.outputs.probabilities(each).contiguous() for each in self.logits(raw, batch_size, flip)]
        )

    @torch.inference_mode()
    def labels(self, case: Case, batch_size: int) -> Labels:
        """The label map (Z, H, W) of a case; errors as of `place`."""
        labels: Labels = decoded(self, case, batch_size)[0].cpu().numpy()
        return labels


class FindsRegions(Protocol):
    """What gives region probabilities of a case, and how they become a label map: one network or several."""

    @property
    def decoding(self) -> Decoding: ...

    def probabilities(self, case: Case, batch_size: int) -> Tensor: ...


def decoded(segmenter: FindsRegions, case: Case, batch_size: int) -> tuple[Tensor, Tensor]:
    """The label map (Z, H, W) uint8 of a case and the probabilities (Z, R, H, W) behind it, on their device."""
    probabilities = segmenter.probabilities(case, batch_size)
    return decode(probabilities, segmenter.decoding, case.voxel_mm3), probabilities


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
