"""Tunes how the probabilities of a trained model become label maps, on the validation cases of its run."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from brats import storage
from brats.cluster import attempts
from brats.cluster.datasets import run_cases
from brats.cluster.placement import place_workers
from brats.config import PredictConfig, TrainConfig
from brats.console import say
from brats.data.items import Item, find_items
from brats.data.rejects import Reject
from brats.data.run_split import SplitRow
from brats.pipeline.predict import read_item, through_network

if TYPE_CHECKING:
    from torch import Tensor

    from brats.model.bundle import ModelCard
    from brats.model.decoding import Decoding
    from brats.model.tuning import TuningCase


def tune(
    config: TrainConfig,
    prepared: str,
    split: Sequence[SplitRow],
    weights: Mapping[str, "Tensor"],
    card: "ModelCard",
) -> "Decoding":
    """The decoding for a model, from the validation cases of its run and from no others.

    The model lies in RUN/tuning meanwhile: what is in RUN/model is whole, and has been tuned. A case that cannot be
    read is left out by name.
    """
    from brats.model.bundle import save_bundle
    from brats.model.tuning import choose_decoding

    folder = storage.join(config.out, "tuning")
    save_bundle(folder, weights, card)
    validated = {row["case_id"] for row in split if row["split"] == "val"}
    items, _, _ = find_items(prepared, folder, card.inputs.modalities, "all")
    cases = segment_cases([item for item in items if item.case_id in validated], config, folder, card)
    decoding = choose_decoding(cases, card.regions)
    storage.remove(folder)
    say("tune", str(decoding))
    return decoding


def segment_cases(items: Sequence[Item], config: TrainConfig, bundle: str, card: "ModelCard") -> list["TuningCase"]:
    """What tuning needs of the validation cases, in the order of their ids."""
    from brats.model.tuning import tuning_case

    found: dict[str, Any] = {}

    def take(case_id: str, outcome: Any) -> None:
        if isinstance(outcome, Reject):
            say("tune", f"without {outcome}")
        else:
            *_, found[case_id] = outcome

    by_id = {item.case_id: item for item in items}
    if not by_id:
        say("tune", "no validation case in the data: defaults")
        return []
    settings = PredictConfig(
        model=bundle, data=bundle, out=bundle, device=config.device, precision=config.precision
    )
    placement = place_workers(config.device, settings.workers, cpu_workers=0, wait_minutes=config.wait_minutes)
    reading = functools.partial(read_item, modalities=card.inputs.modalities)
    dataset = through_network(by_id, settings, reading, tuning_case, placement, attempts.start_counter())
    run_cases(dataset, "tune", len(by_id), take)
    return [found[case_id] for case_id in sorted(found)]
