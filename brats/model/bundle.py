"""A trained model as two files, enough to predict without the configuration it was trained with.

`model.safetensors` holds the weights, `model.json` everything else. Loading executes nothing from either.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from typing import Any, get_args

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from brats import __version__, storage
from brats.config import MODALITIES, OutputKind
from brats.data.batches import InputSpec
from brats.errors import BundleError, ConfigError
from brats.model.decoding import Decoding
from brats.model.outputs import CHANNELS, REGION_OUTPUTS, OutputSpec
from brats.model.unet import build_unet
from brats.storage.documents import check_types

FORMAT = "brats-ray model 3"
FORMAT_WITHOUT_DECODING = "brats-ray model 2"  # had thresholds among its outputs
FORMAT_WITHOUT_INPUTS = "brats-ray model 1"  # moreover had modalities and divisor in place of inputs
WEIGHTS, CARD = "model.safetensors", "model.json"
PACKAGES = ("torch", "segmentation-models-pytorch")  # that the network is made with
MAX_CHANNELS = 2**12  # of a layer; a damaged card must not take all memory
NORMALISATION = (
    "each modality minus the mean, over the standard deviation, of its own brain voxels of the case, those farther "
    "from the background than its tolerance; background voxels are 0 afterwards"
)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Content of `model.json`.

    inputs:     what the network sees: its channels, and the divisor of its slices
    outputs:    of `card_outputs`: kind and names of the output channels
    decoding:   how probabilities become a label map
    trained_on: patient id and voxel hash, by case id, of every case of the train and val splits
    versions:   of the packages that the network was trained with
    """

    format: str = FORMAT
    encoder: str
    decoder_channels: tuple[int, ...]
    inputs: InputSpec
    normalisation: str = NORMALISATION
    outputs: dict[str, Any] = field(default_factory=lambda: card_outputs(REGION_OUTPUTS))
    decoding: Decoding = Decoding()
    epoch: int
    val_dice: float
    trained_on: dict[str, dict[str, str]]
    versions: dict[str, str] = field(
        default_factory=lambda: {"brats-ray": __version__, **{name: version(name) for name in PACKAGES}}
    )

    @property
    def output_spec(self) -> OutputSpec:
        return OutputSpec(self.outputs["kind"])

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that the network predicts."""
        return self.output_spec.regions


def card_outputs(outputs: OutputSpec) -> dict[str, Any]:
    """The outputs of a network as its card has them."""
    return {"kind": outputs.kind, "names": list(outputs.channels)}


def save_bundle(folder: str, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write weights and card; the card last, so that a bundle with a card is whole."""
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    storage.remove(storage.join(folder, CARD))
    storage.write_bytes(weights_path(folder), safetensors.torch.save(contiguous))
    storage.write_json(storage.join(folder, CARD), asdict(card))


def bundle_dir(run: str) -> str:
    """Where a run has its bundle."""
    return storage.join(run, "model")


def weights_path(bundle: str) -> str:
    return storage.join(bundle, WEIGHTS)


def exported_epoch(bundle: str) -> int | None:
    """The epoch whose weights a bundle holds; None where there is none yet."""
    return read_card(bundle).epoch if storage.exists(storage.join(bundle, CARD)) else None


def find_bundle(path: str) -> str:
    """The bundle of a run, or the bundle itself, by its folder."""
    for folder in (bundle_dir(path), path):
        if storage.exists(storage.join(folder, CARD)):
            return folder
    raise BundleError(f"{path}: no model here; give a run of train.py or a folder with {WEIGHTS} and {CARD}")


def read_card(folder: str) -> ModelCard:
    """The card of a bundle. Raises BundleError for one that is missing, incomplete or of another program."""
    path = storage.join(folder, CARD)
    try:
        content = storage.read_json(path)
    except FileNotFoundError:
        raise BundleError(f"{path}: no such file; the bundle is not whole") from None
    if content.get("format") == FORMAT_WITHOUT_INPUTS:
        content = _with_inputs(content)
    if content.get("format") not in (FORMAT, FORMAT_WITHOUT_DECODING):
        raise BundleError(f"{path}: format {content.get('format')!r}, this program reads {FORMAT!r}")
    try:
        return _to_card(path, content)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: damaged ({error}); give another model") from error


def _to_card(path: str, content: dict[str, Any]) -> ModelCard:
    if content["format"] == FORMAT_WITHOUT_DECODING:
        content = _with_decoding(content)
    missing = [item.name for item in fields(ModelCard) if item.name not in content]
    missing += [name for name in InputSpec.required_fields() if name not in content.get("inputs", {})]
    if missing:
        raise BundleError(f"{path}: lacks {', '.join(missing)}")
    values = {item.name: _tuple(content[item.name]) for item in fields(ModelCard)}
    inputs, decoding = InputSpec.from_json(content["inputs"]), Decoding.from_json(content["decoding"])
    card = ModelCard(**{**values, "inputs": inputs, "decoding": decoding})
    check_types(decoding)
    check_types(card)
    for case_id, case in card.trained_on.items():
        if not {"patient_id", "voxel_hash"} <= case.keys():
            raise BundleError(f"{path}: trained_on lacks the patient or the hash of {case_id!r}")
    if not set(card.inputs.modalities) <= set(MODALITIES) or not card.inputs.modalities:
        raise BundleError(f"{path}: modalities {card.inputs.modalities} are not some of {MODALITIES}")
    for name, number in (
        ("divisor", card.inputs.divisor),
        *(("decoder channels", n) for n in card.decoder_channels),
    ):
        if not 0 < number <= MAX_CHANNELS:
            raise BundleError(f"{path}: {name} {number}, where 1 to {MAX_CHANNELS} are expected")
    _check_outputs(path, card.outputs)
    return card


def _check_outputs(path: str, outputs: Mapping[str, Any]) -> None:
    """Raise BundleError unless the outputs are of a known kind, with its channels."""
    kind: Any = outputs.get("kind")
    if kind not in get_args(OutputKind):
        raise BundleError(f"{path}: outputs of the kind {kind!r}, this program knows {', '.join(CHANNELS)}")
    spec = OutputSpec(kind)
    if outputs.get("names") != list(spec.channels):
        raise BundleError(f"{path}: outputs {json.dumps(outputs)} are not the {kind} {', '.join(spec.channels)}")


def _with_inputs(content: dict[str, Any]) -> dict[str, Any]:
    """A card of `FORMAT_WITHOUT_INPUTS` in today's form."""
    inputs = {name: content[name] for name in ("modalities", "divisor") if name in content}
    return {**content, "format": FORMAT_WITHOUT_DECODING, "inputs": inputs}


def _with_decoding(content: dict[str, Any]) -> dict[str, Any]:
    """A card of `FORMAT_WITHOUT_DECODING` in today's form: with its thresholds, and without rules."""
    outputs = dict(content.get("outputs", {}))
    decoding = {**asdict(Decoding()), "thresholds": outputs.pop("thresholds", [])}
    return {**content, "format": FORMAT, "outputs": outputs, "decoding": decoding}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def load_bundle(folder: str) -> tuple[nn.Module, ModelCard]:
    """The network in evaluation mode, on the CPU, and its card.

    Raises BundleError naming the tensor that is missing, unexpected or of another shape.
    """
    card = read_card(folder)
    path = weights_path(folder)
    weights = read_tensors(folder)
    try:
        network = build_unet(
            encoder=card.encoder,
            n_channels=card.inputs.n_channels,
            decoder_channels=card.decoder_channels,
            outputs=card.output_spec,
        )
    except ConfigError as error:
        raise BundleError(f"{storage.join(folder, CARD)}: {error}") from error
    _check_tensors(path, network.state_dict(), weights)
    network.load_state_dict(weights)
    return network.eval(), card


def read_tensors(folder: str) -> dict[str, Tensor]:
    """The weights of a bundle, on the CPU. Raises BundleError where the file is missing or damaged."""
    path = weights_path(folder)
    try:
        return safetensors.torch.load(storage.read_bytes(path))
    except FileNotFoundError:
        raise BundleError(f"{path}: no such file; the bundle is not whole") from None
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{path}: not a whole safetensors file ({reason})") from error


def _check_tensors(path: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in found:
            raise BundleError(f"{path}: the tensor {name} is missing")
        if found[name].shape != tensor.shape:
            raise BundleError(
                f"{path}: the tensor {name} has shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
            )
    for name in found:
        if name not in expected:
            raise BundleError(f"{path}: the tensor {name} does not belong to this network")
