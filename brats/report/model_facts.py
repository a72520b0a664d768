"""Card, network drawing and sample slices of a model, for a report."""

from brats.data.batches import InputSpec
from brats.data.dataset import slices_path
from brats.data.slices import SliceFile
from brats.errors import BratsError
from brats.model.bundle import ModelCard, find_bundle, read_card
from brats.model.ensemble import bundles_of
from brats.model.layers import architecture
from brats.model.samples import sample_slices
from brats.report.findings import Findings
from brats.report.gallery import Samples
from brats.report.html import paragraph
from brats.report.network import draw_network

N_SAMPLES = 3  # of the augmented slices
USUAL_SIZE = (160, 192)  # of a slice where no split says how large the crops are


def find_card(found: Findings) -> ModelCard | None:
    """The card of the model of a run or of predictions, of an ensemble that of its first; None without one."""
    place = found.folder if found.histories or found.split else str(found.config.get("model", ""))
    try:
        return read_card(bundles_of(find_bundle(place))[0]) if place else None
    except BratsError:  # unfinished, or moved since
        return None


def network_drawing(card: ModelCard, found: Findings) -> str:
    """The network of a card on a slice of the size that the run trained on, as HTML."""
    sizes = [(int(row["height"]), int(row["width"])) for row in found.split] or [USUAL_SIZE]
    size = card.inputs.padded_size(sizes)
    network = architecture(card, size)
    words = (
        f"{card.encoder}: {network.n_parameters:,} weights. Shapes are channels, rows x columns for a slice of "
        f"{size[0]} x {size[1]}, from a forward pass; dashed are the skip connections. Outputs: "
        f"{', '.join(card.output_spec.channels)}."
    )
    return draw_network(network) + paragraph(words)


def read_samples(card: ModelCard, found: Findings) -> Samples | None:
    """Samples of the training case with most tumour; None of other folders than runs.

    Raises the errors of `SliceFile` where its file has gone.
    """
    trained = [row for row in found.split if row["split"] == "train" and any(row["tumour_per_slice"] or ())]
    if not trained:
        return None
    row = max(trained, key=lambda row: sum(row["tumour_per_slice"]))
    config = found.config
    inputs = InputSpec(modalities=card.inputs.modalities, plane=card.inputs.plane)
    case = SliceFile(slices_path(found.data, row["case_id"])).read_case(inputs.modalities)
    kind = config.get("augmentation", "flips")
    normalised, augmented = sample_slices(
        case,
        inputs,
        kind=kind,
        modality_dropout=config.get("modality_dropout", 0.0),
        seed=config.get("seed", 0),
        n_samples=N_SAMPLES if kind != "none" else 0,
    )
    return Samples(
        case_id=row["case_id"],
        modalities=inputs.modalities,
        augmentation=kind,
        normalised=normalised,
        augmented=augmented,
    )
