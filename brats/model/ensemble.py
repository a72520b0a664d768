"""Ensembles: the mean of the region probabilities of several models, in a bundle of its own or of one model alone.

An ensemble bundle holds copies of the bundles that it is made of, in `member_0` and on, and lists them in its own
`model.json`. What predicts takes either kind of bundle.

Axes: `Z H W` slices of a crop, `R` region.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from brats import storage
from brats.config import Precision
from brats.data.case import Case
from brats.errors import BundleError
from brats.labels import Labels
from brats.model.bundle import CARD, WEIGHTS, ModelCard, load_bundle, read_card, weights_path
from brats.model.decoding import Decoding, mean_decoding
from brats.model.inference import Segmenter, decoded
from brats.storage.documents import check_types

FORMAT = "brats-ray ensemble 1"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One model of an ensemble bundle.

    folder:  of its bundle, below that of the ensemble
    name:    of the run that it was copied from
    content: SHA-256 of its weights and card
    """

    folder: str
    name: str
    content: str


@dataclass(frozen=True, kw_only=True)
class EnsembleCard:
    """Content of the `model.json` of an ensemble."""

    format: str = FORMAT
    members: tuple[Member, ...]


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a bundle of either kind states about its networks, of which a single model has one.

    fingerprint: of the weights, 16 hexadecimal digits
    """

    cards: tuple[ModelCard, ...]
    fingerprint: str

    @property
    def modalities(self) -> tuple[str, ...]:
        """What a case must have."""
        return _union(card.inputs.modalities for card in self.cards)

    @property
    def regions(self) -> tuple[str, ...]:
        """What all of the networks predict."""
        return self.cards[0].regions

    @property
    def decoding(self) -> Decoding:
        """How the mean of their probabilities becomes a label map."""
        return mean_decoding([card.decoding for card in self.cards])

    @property
    def trained_on(self) -> dict[str, dict[str, str]]:
        """Patient id and voxel hash of every case that any of the networks was trained or chosen on."""
        return {case_id: case for card in self.cards for case_id, case in card.trained_on.items()}


@dataclass(frozen=True, kw_only=True)
class EnsembleSegmenter:
    """Segmenters whose probabilities are averaged: used as a single one is.

    decoding: how their mean probabilities become a label map
    """

    members: Sequence[Segmenter]
    decoding: Decoding

    @property
    def modalities(self) -> tuple[str, ...]:
        """What a case must have."""
        return _union(member.modalities for member in self.members)

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that all of them predict."""
        return self.members[0].regions

    @torch.inference_mode()
    def probabilities(self, case: Case, batch_size: int) -> Tensor:
        """The mean probability (Z, R, H, W) of each region in each voxel, float32; errors as of its members."""
        total = self.members[0].probabilities(case, batch_size)
        for member in self.members[1:]:
            total += member.probabilities(case, batch_size)
        return total.div_(len(self.members))

    @torch.inference_mode()
    def labels(self, case: Case, batch_size: int) -> Labels:
        """The label map (Z, H, W) of a case; errors as of its members."""
        labels: Labels = decoded(self, case, batch_size)[0].cpu().numpy()
        return labels


def _union(each: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The modalities of all, each once, in the order in which they come."""
    return tuple(dict.fromkeys(name for names in each for name in names))


def save_ensemble(folder: str, bundles: Mapping[str, str], outdated: str | None = None) -> bool:
    """Copy bundles, by the name of each, into one ensemble bundle; its card last. Returns False where it is there.

    outdated: a folder of what an earlier bundle has predicted, which goes before the bundle is there

    Raises BundleError where they predict different regions.
    """
    check_regions({name: read_card(bundle) for name, bundle in bundles.items()})
    members = tuple(
        Member(folder=f"member_{number}", name=name, content=_content(bundle))
        for number, (name, bundle) in enumerate(bundles.items())
    )
    if is_ensemble(folder) and read_ensemble(folder).members == members:
        return False
    if outdated:
        storage.remove(outdated)  # before the card, which tells the next start that all of this is done
    storage.remove(folder)
    for member in members:
        for file in (WEIGHTS, CARD):
            copied = storage.read_bytes(storage.join(bundles[member.name], file))
            storage.write_bytes(storage.join(folder, member.folder, file), copied)
    storage.write_json(storage.join(folder, CARD), dataclasses.asdict(EnsembleCard(members=members)))
    return True


def check_regions(cards: Mapping[str, ModelCard]) -> None:
    """Raise BundleError naming two models that predict different regions: their probabilities have no mean."""
    (first, card), *others = cards.items()
    for name, other in others:
        if other.regions != card.regions:
            raise BundleError(
                f"{first} predicts {', '.join(card.regions)}, but {name} {', '.join(other.regions)}; only models "
                "of the same regions can be averaged"
            )


def _content(bundle: str) -> str:
    digest = hashlib.sha256()
    for file in (WEIGHTS, CARD):
        digest.update(storage.read_bytes(storage.join(bundle, file)))
    return digest.hexdigest()


def is_ensemble(folder: str) -> bool:
    """Whether a bundle is that of an ensemble; False where there is none."""
    try:
        return storage.read_json(storage.join(folder, CARD)).get("format") == FORMAT
    except FileNotFoundError:
        return False


def read_ensemble(folder: str) -> EnsembleCard:
    """The card of an ensemble bundle. Raises BundleError for a damaged one."""
    path = storage.join(folder, CARD)
    content = storage.read_json(path)
    try:
        card = EnsembleCard(members=tuple(Member(**member) for member in content["members"]))
        for number, member in enumerate(card.members):
            check_types(member)
            if member.folder != f"member_{number}":
                raise ValueError(f"member {number} lies in {member.folder!r}")
        if not card.members:
            raise ValueError("it lists no member")
    except (LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: damaged ({error}); give another model") from error
    return card


def bundles_of(bundle: str) -> list[str]:
    """The folders of the models of a bundle: its members, or itself alone."""
    if not is_ensemble(bundle):
        return [bundle]
    return [storage.join(bundle, member.folder) for member in read_ensemble(bundle).members]


def read_model(bundle: str) -> Model:
    """What a bundle of either kind states. Raises BundleError where it, or one of its members, cannot be used."""
    folders = bundles_of(bundle)
    cards = tuple(load_bundle(folder)[1] for folder in folders)
    check_regions(dict(zip(folders, cards, strict=True)))
    hashes = [hashlib.sha256(storage.read_bytes(weights_path(folder))).hexdigest() for folder in folders]
    together = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return Model(cards=cards, fingerprint=together[:16])


def load_segmenter(
    bundle: str, device: torch.device, precision: Precision, *, flips: bool = False
) -> Segmenter | EnsembleSegmenter:
    """The segmenter of a bundle of either kind. Raises BundleError and ConfigError."""
    segmenters = [Segmenter.load(folder, device, precision, flips=flips) for folder in bundles_of(bundle)]
    if len(segmenters) == 1:
        return segmenters[0]
    return EnsembleSegmenter(members=segmenters, decoding=mean_decoding([each.decoding for each in segmenters]))
