"""Tiny prepared cases, made in memory and written as `prepare` writes them, and a network and batches for them."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from brats import storage
from brats.config import Modality, Precision, TrainConfig
from brats.data.batches import InputSpec, TrainingSet, WorkerBatch
from brats.data.case import Case
from brats.data.cases import CaseFiles
from brats.data.dataset import case_row, slices_path
from brats.data.epoch import EpochPlan, PlannedBatch
from brats.data.grid import Grid
from brats.data.preprocess import crop_case
from brats.data.slices import encode_case, open_slices
from brats.data.trim import trim
from brats.data.volume import Volume
from brats.labels import Labels
from brats.model.decoding import Decoding
from brats.model.distributed import Worker
from brats.model.feed import RawSlices, ResidentFeed, StepInput, StreamFeed
from brats.model.inference import Segmenter
from brats.model.learner import Learner
from brats.model.outputs import REGION_OUTPUTS, OutputSpec
from brats.model.pool import SlicePool
from brats.model.unet import build_unet
from brats.storage import FileInfo
from tests.support.synthetic import AFFINE, TISSUE_VALUES, make_labels

SHAPE = (40, 36, 10)
MODALITIES: tuple[Modality, ...] = ("flair", "t1ce")
INPUTS = InputSpec(modalities=MODALITIES)
SIZE = INPUTS.padded_size([SHAPE[:2]])
CONFIG = TrainConfig(
    out="run",
    modalities=MODALITIES,
    encoder="tu-test_resnet",  # a tenth of the time of resnet18
    decoder_channels=(8, 8, 8, 8, 8),
    epochs=2,
    batch_size=8,
    micro_batch_size=4,
    warmup_steps=2,
    augmentation="flips",
)
CPU = torch.device("cpu")
PLAIN = Decoding()
ALONE = Worker(rank=0, world_size=1, device=CPU, precision="fp32")
NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


def undecided_network(
    encoder: str = CONFIG.encoder,
    outputs: OutputSpec = REGION_OUTPUTS,
    decoder_channels: tuple[int, ...] = CONFIG.decoder_channels,
) -> nn.Module:
    """A network that finds tumour in about half of the voxels, or of classes each, the same each time."""
    torch.manual_seed(0)
    network = build_unet(
        encoder=encoder,
        n_channels=INPUTS.n_channels,
        decoder_channels=decoder_channels,
        outputs=outputs,
    )
    nn.init.zeros_(network.get_parameter("segmentation_head.0.bias"))
    return network


def segmenter_of(
    network: nn.Module,
    *,
    inputs: InputSpec = INPUTS,
    precision: Precision = "fp32",
    outputs: OutputSpec = REGION_OUTPUTS,
    decoding: Decoding = PLAIN,
    flips: bool = False,
) -> Segmenter:
    """A network at work on a CPU; one that is in evaluation mode if it is to be."""
    return Segmenter(
        network=network,
        inputs=inputs,
        device=CPU,
        precision=precision,
        outputs=outputs,
        decoding=decoding,
        flips=flips,
    )


def learner_of(
    network: nn.Module,
    *,
    config: TrainConfig = CONFIG,
    worker: Worker = ALONE,
    optimiser: torch.optim.Optimizer | None = None,
    scaler: torch.amp.GradScaler = NO_SCALER,
) -> Learner:
    """A network in training, by plain gradient descent unless an optimiser is given."""
    return Learner.around(
        network,
        optimiser or torch.optim.SGD(network.parameters(), lr=123.0),  # every step sets its own
        scaler,
        config=config,
        inputs=INPUTS,
        worker=worker,
    )


def tiny_case(
    case_id: str = "case",
    *,
    seed: int = 0,
    labels: Labels | None = None,
    dtypes: Mapping[str, npt.DTypeLike] | None = None,
    shape: tuple[int, int, int] = SHAPE,
) -> Case:
    """A case of two modalities without margin, so that its crop is (10, 40, 36); by default with a round tumour.

    dtypes: number type of the images that are not int16
    """
    random = np.random.default_rng(seed)
    labels = make_labels(random, shape) if labels is None else labels
    grid = Grid.of(shape, tuple(tuple(row) for row in AFFINE.tolist()), {})
    volumes: dict[str, Volume] = {}
    for name in MODALITIES:
        healthy, oedema, core = TISSUE_VALUES[name]
        values = np.choose(labels, (healthy, core - 100, oedema, core)) + random.normal(0, 20, shape)
        values = values.astype((dtypes or {}).get(name, np.int16))
        values[:: shape[0] - 1, :: shape[1] - 1, :: shape[2] - 1] = 0  # the corners, which name the background
        volumes[name] = Volume(voxels=values, slope=1, inter=0, grid=grid)
    files = CaseFiles(
        case_id=case_id,
        patient_id=case_id,
        layout="brats2018",
        coding="brats2018",
        images={name: FileInfo(f"{case_id}_{name}.nii", 1) for name in MODALITIES},
        segmentation=None,
        grade="",
    )
    return crop_case(files, {name: trim(volume) for name, volume in volumes.items()}, labels)


def write_prepared(prepared: str, cases: Sequence[Case]) -> list[str]:
    """Write prepared cases; return their paths."""
    paths = [slices_path(prepared, case.case_id) for case in cases]
    for path, case in zip(paths, cases, strict=True):
        storage.write_bytes(path, encode_case(case)[0])
    return paths


def training_set(prepared: str, paths: Sequence[str], config: TrainConfig) -> TrainingSet:
    """What a run on these prepared cases trains on."""
    described = [open_slices(path).description for path in paths]
    split = [
        {**case_row(case), "split": "train", "tumour_per_slice": case["tumour_per_slice"]} for case in described
    ]
    return TrainingSet.of(config, prepared, split)


def plan(paths: Sequence[str], config: TrainConfig, epoch: int) -> list[PlannedBatch]:
    """The epoch plan of these prepared cases."""
    return training_set("", paths, config).plan.epoch(epoch)


def worker_batch(prepared: str, planned: PlannedBatch, rank: int, world_size: int) -> WorkerBatch:
    """One rank's shard of a planned batch."""
    data = TrainingSet(prepared=prepared, plan=EpochPlan.of(CONFIG, []), inputs=INPUTS, size=SIZE, shapes=())
    return data.read_shard(planned, rank, world_size)


def epochs(
    prepared: str,
    paths: Sequence[str],
    config: TrainConfig,
    *,
    first: int = 1,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[WorkerBatch]:
    """One rank's batches of every epoch from `first` to the last, if there is a last."""
    for epoch in range(first, config.epochs + 1) if config.epochs else itertools.count(first):
        for planned in plan(paths, config, epoch):
            yield worker_batch(prepared, planned, rank, world_size)


def stream_feed(
    prepared: str,
    paths: Sequence[str],
    config: TrainConfig,
    *,
    first: int = 1,
    worker: Worker = ALONE,
    batches: Iterator[WorkerBatch] | None = None,
) -> StreamFeed:
    """A feed of one rank's batches of every epoch from `first` to the last, or of other batches."""
    data = training_set(prepared, paths, config)
    planned = epochs(prepared, paths, config, first=first, rank=worker.rank, world_size=worker.world_size)
    return StreamFeed(planned if batches is None else batches, config, data, worker)


def resident_feed(
    prepared: str, paths: Sequence[str], config: TrainConfig, *, worker: Worker = ALONE
) -> ResidentFeed:
    """A feed of one rank's slices from memory."""
    data = training_set(prepared, paths, config)
    layout = data.pool_layout()
    volumes = map(data.read_volume, layout.index)
    pool = SlicePool.fill(layout, volumes, worker.device, at_most=layout.n_bytes(2 + 4))
    return ResidentFeed(pool, config, data, worker)


def step_inputs(feed: StreamFeed | ResidentFeed, epoch: int = 1) -> list[StepInput]:
    """All steps of an epoch."""
    return list(feed.epoch(epoch))


def raw_slices(batch: WorkerBatch) -> RawSlices:
    """The slices of a batch, not to be augmented."""
    slices = batch.slices
    numbers = np.stack([slices.offset, slices.scale, slices.background, slices.tolerance], axis=1)
    return RawSlices(
        images=torch.from_numpy(slices.images),
        labels=torch.from_numpy(batch.labels),
        numbers=torch.from_numpy(numbers),
        parameters=torch.zeros(len(batch.labels), 0),
    )
