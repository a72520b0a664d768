"""Two real workers of a training run, joined by gloo: what they compute together is what one computes alone.

All of it runs in one pair of processes (`work`), whose findings the tests look at: starting a pair takes seconds.
"""

import copy
import dataclasses
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from brats.config import Precision, TrainConfig
from brats.data.batches import WorkerBatch
from brats.data.epoch import PlannedBatch
from brats.errors import BratsError, DivergedError
from brats.model import learner, training
from brats.model.checkpoint import load_checkpoint, saved_epochs
from brats.model.distributed import (
    FlatGradients,
    Worker,
    all_reduce_sum,
    average_buffers,
    check_same_precision,
    share_state,
    wire_dtype,
)
from brats.model.engine import Engine
from brats.model.history import read_history
from brats.model.inference import Segmenter
from brats.model.inputs import training_tensors
from brats.model.losses import Loss, bce_dice_loss, region_targets
from brats.model.training import fit
from brats.model.validation import ValidationCases, validate
from tests.support.prepared import (
    ALONE,
    CONFIG,
    CPU,
    INPUTS,
    epochs,
    learner_of,
    plan,
    raw_slices,
    resident_feed,
    segmenter_of,
    stream_feed,
    tiny_case,
    training_set,
    undecided_network,
    worker_batch,
    write_prepared,
)
from tests.support.recording import Recorder

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = dataclasses.replace(CONFIG, augmentation="none")
THREES = dataclasses.replace(PLAIN, micro_batch_size=3)

Findings = dict[str, Any]


def gradients(network: nn.Module) -> dict[str, Tensor]:
    named = network.named_parameters()
    return {name: value.grad.clone() for name, value in named if value.grad is not None}


def assert_same_gradient(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal but for the order of sums, which BatchNorm over a few pixels makes more of."""
    assert list(found) == list(expected)
    whole = torch.cat([gradient.flatten() for gradient in expected.values()])
    difference = torch.cat([gradient.flatten() for gradient in found.values()]) - whole
    assert whole.norm() > 1e-2
    assert difference.norm() < 1e-4 * whole.norm()


def worker_at(rank: int) -> Worker:
    return Worker(rank=rank, world_size=2, device=CPU, precision="fp32")


def validation(worker: Worker, paths: Sequence[str]) -> dict[str, float]:
    cases = ValidationCases(paths, INPUTS, worker.device)
    return validate(segmenter_of(undecided_network()), bce_dice_loss, worker, cases)


def own_paths(prepared: str) -> tuple[list[str], list[str]]:
    """The prepared cases to train and to validate on."""
    paths = [os.path.join(prepared, "slices", name) for name in sorted(os.listdir(f"{prepared}/slices"))]
    return [path for path in paths if "train" in path], [path for path in paths if "val" in path]


def first_batch(train: Sequence[str], n_slices: int) -> PlannedBatch:
    planned = plan(train, CONFIG, 1)[0]
    return dataclasses.replace(planned, slices=planned.slices[:n_slices])


# What each of the two processes does


def work(rank: int, folder: str) -> None:
    """Everything that takes two workers; the findings of each go to a file of its own."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    worker, prepared = worker_at(rank), f"{folder}/prepared"
    train, val = own_paths(prepared)
    findings = {
        "even": step(worker, prepared, PLAIN, first_batch(train, 8)),
        "uneven": step(worker, prepared, THREES, first_batch(train, 7)),
        "bf16": step(worker, prepared, PLAIN, first_batch(train, 8), torch.bfloat16),
        "beginning": other_beginning(worker),
        "recorded": [recorded(worker, prepared, train, scaled=scaled) for scaled in (False, True)],
        "mixed": mixed_precision(worker),
        "sum": all_reduce_sum([rank + 1, 10.5], worker),
        "buffers": averaged_buffers(worker),
        "validation": validation(worker, val[rank::2]),
        "idle validation": validation(worker, val[:1][rank::2]),
        "run": runs(worker, prepared, train, val, folder),
    }
    torch.save(findings, f"{folder}/findings_{rank}.pt")
    torch.distributed.destroy_process_group()


def step(
    worker: Worker,
    prepared: str,
    config: TrainConfig,
    planned: PlannedBatch,
    wire: torch.dtype = torch.float32,
) -> Findings:
    """Loss and gradient of one global batch."""
    network = undecided_network()
    learner = learner_of(network, config=config, worker=worker)
    learner = dataclasses.replace(learner, gradients=FlatGradients.of(network, CPU, wire))
    batch = worker_batch(prepared, planned, worker.rank, 2)
    learner.compute(raw_slices(batch), batch.n_global, config.micro_batch_size or len(batch.labels))
    learner.exchange()
    learner.gradients.unpack()
    return {
        "n_slices": len(batch.labels),
        "loss_sum": learner.sums.read().loss_sum,
        "gradients": gradients(learner.network),
        "bytes": learner.gradients.wire.numel() * learner.gradients.wire.element_size(),
    }


def other_beginning(worker: Worker) -> Findings:
    """The weights of a learner whose network began differently on every rank."""
    network = small_network(n_channels=2)
    torch.nn.init.constant_(network.get_parameter("0.weight"), worker.rank + 1.0)
    share_state(network, worker)
    return {"weight": network.get_parameter("0.weight").detach().clone()}


def recorded(worker: Worker, prepared: str, paths: list[str], *, scaled: bool) -> list[dict[str, Tensor]]:
    """The weights after two epochs of eager and of recorded steps."""
    feed = resident_feed(prepared, paths, CONFIG, worker=worker)
    found = []
    for record in (None, Recorder()):
        torch.manual_seed(0)
        network = small_network(n_channels=2)
        scaler = torch.amp.GradScaler("cpu", enabled=scaled)
        learner = learner_of(network.train(), worker=worker, scaler=scaler)
        share_state(network, worker)
        engine = Engine(learner, feed, record=record)
        for epoch in (1, 2):
            for batch in feed.epoch(epoch):
                engine.step(batch, 1e-2, 0.9)
        assert record is None or len(record.shapes) >= 2  # the gradients of one size at least, and the update
        found.append(network.state_dict())
    return found


def mixed_precision(worker: Worker) -> str:
    try:
        check_same_precision(dataclasses.replace(worker, precision="bf16" if worker.rank else "fp16"))
    except BratsError as error:
        return str(error)
    return ""


def averaged_buffers(worker: Worker) -> Findings:
    model = undecided_network()
    model.train()(torch.full((2, 2, 64, 64), float(worker.rank)).normal_(worker.rank, 1))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    average_buffers(model, worker)
    return {"before": before, "after": dict(model.named_buffers())}


def runs(worker: Worker, prepared: str, train: list[str], val: list[str], folder: str) -> Findings:
    """A whole run, one interrupted and resumed, one that diverges on the second worker's shard, and two others."""
    validated: list[tuple[list[str], dict[str, Tensor]]] = []

    def observed(segmenter: Segmenter, loss: Loss, worker: Worker, cases: ValidationCases) -> dict[str, float]:
        state = copy.deepcopy(segmenter.network.state_dict())
        validated.append(([os.path.basename(path) for path in cases.paths], state))
        return validate(segmenter, loss, worker, cases)

    pytest.MonkeyPatch().setattr(training, "validate", observed)  # for the rest of this process

    def own(first: int = 1) -> Iterator[WorkerBatch]:
        return epochs(prepared, train, CONFIG, first=first, rank=worker.rank, world_size=2)

    def without_end() -> Iterator[WorkerBatch]:
        return epochs(prepared, train, dataclasses.replace(CONFIG, epochs=99), rank=worker.rank, world_size=2)

    def run(
        name: str,
        batches: Iterator[WorkerBatch] | None = None,
        config: TrainConfig = CONFIG,
        worker: Worker = worker,
        **timing: Any,
    ) -> Any:
        done = max(saved_epochs(f"{folder}/{name}"), default=0)
        try:
            return fit(
                config,
                worker,
                data=training_set(prepared, train, config),
                feed=stream_feed(prepared, train, config, first=done + 1, worker=worker, batches=batches),
                val_paths=val,
                run=f"{folder}/{name}",
                on_epoch=lambda _: None,
                on_progress=lambda _: None,
                ends_early=lambda: False,
                **timing,
            )
        except BratsError as error:
            return f"{type(error).__name__}: {error}"

    found = {
        "whole": run("whole"),
        "validated": validated[0],
        "interrupted": run("parts", itertools.islice(own(), 6)),
        "parts": run("parts"),
        "diverged": run("diverged", poisoned(own(), position=5, when=worker.rank == 1)),
        "unused": run("unused", config=dataclasses.replace(CONFIG, encoder="efficientnet-b0", epochs=1)),
    }
    pytest.MonkeyPatch().setattr(learner, "build_unet", small_network)  # fp16 takes a CPU fifteen times as long
    exact = {"small": run("small")}
    minutes = dataclasses.replace(CONFIG, epochs=None, minutes=0.5)
    exact["minutes"] = run("minutes", without_end(), minutes, clock=disagreeing_clock(worker.rank))
    steps = dataclasses.replace(CONFIG, epochs=None, steps=18)
    exact["spaced"] = run("spaced", without_end(), steps, clock=disagreeing_clock(worker.rank), cadence=after_10_s)
    return found | exact | {"fp16": run("fp16", worker=dataclasses.replace(worker, precision="fp16"))}


def disagreeing_clock(rank: int) -> Callable[[], float]:
    """A clock that each reading of it moves on, on rank 0 by a second, on rank 1 by an hour."""
    readings = itertools.count()
    return lambda: next(readings) * (3600.0 if rank else 1.0)


def after_10_s(trained_s: float, _cost_s: float) -> bool:
    return trained_s >= 10


def small_network(**options: Any) -> nn.Module:
    """A network in place of `build_unet`."""
    return nn.Sequential(
        nn.Conv2d(options["n_channels"], 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 3, 3, padding=1),
    )


def poisoned(batches: Iterator[WorkerBatch], *, position: int, when: bool) -> Iterator[WorkerBatch]:
    """The batches, that at one position with an intensity that is no number."""
    for number, batch in enumerate(batches):
        if when and number == position:
            offset = np.full_like(batch.slices.offset, np.nan)
            yield dataclasses.replace(batch, slices=dataclasses.replace(batch.slices, offset=offset))
        else:
            yield batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workers")
    cases = [tiny_case(f"train{seed}", seed=seed) for seed in range(3)]
    cases += [tiny_case(f"val{seed}", seed=seed) for seed in (8, 9, 10)]
    write_prepared(str(root / "prepared"), cases)
    return root


@pytest.fixture(scope="module")
def findings(folder: Path) -> list[Findings]:
    """What the two workers found, by rank."""
    spawn(work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"findings_{rank}.pt", weights_only=False) for rank in (0, 1)]


# What they found


def test_two_workers_have_the_gradient_of_one_with_two_micro_batches(
    findings: list[Findings], folder: Path
) -> None:
    prepared = str(folder / "prepared")
    train, _ = own_paths(prepared)
    alone = learner_of(undecided_network(), config=PLAIN)
    alone.compute(raw_slices(worker_batch(prepared, first_batch(train, 8), 0, 1)), 8, 4)
    loss, expected = alone.sums.read().loss_sum, gradients(alone.network)
    for found in findings:
        assert found["even"]["n_slices"] == 4
        assert_same_gradient(found["even"]["gradients"], expected)
    assert sum(found["even"]["loss_sum"] for found in findings) == pytest.approx(loss, rel=1e-5)


def test_uneven_shards_and_micro_batches_weigh_as_many_slices_as_they_have(
    findings: list[Findings], folder: Path
) -> None:
    prepared = str(folder / "prepared")
    train, _ = own_paths(prepared)
    slices = raw_slices(worker_batch(prepared, first_batch(train, 7), 0, 1))
    images, labels = training_tensors(slices, torch.zeros(1), "none", INPUTS)
    targets = region_targets(labels)
    sizes = [3, 2, 2]  # one micro-batch of the first worker, two of the second
    assert [found["uneven"]["n_slices"] for found in findings] == [3, 4]
    alone, loss_sum = undecided_network(), 0.0
    for part, target in zip(images.split(sizes), targets.split(sizes), strict=True):
        loss = bce_dice_loss(alone(part), target)
        (loss * len(part) / 7).backward()
        loss_sum += loss.item() * len(part)
    for found in findings:
        assert_same_gradient(found["uneven"]["gradients"], gradients(alone))
    assert sum(found["uneven"]["loss_sum"] for found in findings) == pytest.approx(loss_sum, rel=1e-5)


def test_gradients_may_travel_in_16_bits(findings: list[Findings]) -> None:
    exact, halved = findings[0]["even"], findings[0]["bf16"]
    assert halved["bytes"] * 2 == exact["bytes"]
    whole, rounded = (
        torch.cat([tensor.flatten() for tensor in found["gradients"].values()]) for found in (exact, halved)
    )
    assert torch.nn.functional.cosine_similarity(whole, rounded, dim=0) > 0.99
    other = findings[1]["bf16"]["gradients"]
    assert torch.equal(rounded, torch.cat([tensor.flatten() for tensor in other.values()]))


@pytest.mark.parametrize(
    ("device", "precision", "world_size", "dtype"),
    [
        ("cuda", "fp16", 2, torch.float16),
        ("cuda", "bf16", 2, torch.bfloat16),
        ("cuda", "fp32", 2, torch.float32),
        ("cuda", "fp16", 1, torch.float32),
        ("cpu", "bf16", 2, torch.float32),
    ],
)
def test_gpus_exchange_gradients_in_the_type_they_compute_in(
    device: str, precision: Precision, world_size: int, dtype: torch.dtype
) -> None:
    worker = Worker(rank=0, world_size=world_size, device=torch.device(device), precision=precision)
    assert wire_dtype(worker) == dtype


def test_steps_recorded_on_two_workers_leave_the_weights_of_eager_ones(findings: list[Findings]) -> None:
    for number in range(2):
        weights = [found["recorded"][number] for found in findings]
        for eager, recorded in weights:
            torch.testing.assert_close(recorded, eager, rtol=0, atol=0)
        parameters = [name for name in weights[0][0] if name.endswith("weight")]
        assert all(torch.equal(weights[0][1][name], weights[1][1][name]) for name in parameters)


def test_workers_that_would_compute_in_different_precisions_are_refused(findings: list[Findings]) -> None:
    for found in findings:
        assert found["mixed"].startswith("--precision: auto means bf16 and fp16 on the GPUs of this cluster")


def test_every_worker_begins_with_the_weights_of_the_first(findings: list[Findings]) -> None:
    for found in findings:
        assert (found["beginning"]["weight"] == 1).all()


def test_sums_are_over_the_workers(findings: list[Findings]) -> None:
    assert [found["sum"] for found in findings] == [[3, 21], [3, 21]]


def test_the_batchnorm_statistics_of_all_workers_are_their_mean_afterwards(findings: list[Findings]) -> None:
    first, second = (found["buffers"] for found in findings)
    different = [name for name in first["before"] if not torch.equal(first["before"][name], second["before"][name])]
    assert any(name.endswith("running_mean") for name in different)
    assert any(name.endswith("running_var") for name in different)
    for name, buffer in first["after"].items():
        assert torch.equal(buffer, second["after"][name])
        if name in different:
            mean = (first["before"][name] + second["before"][name]) / 2
            torch.testing.assert_close(buffer, mean)


def test_validation_by_two_workers_is_that_of_one(findings: list[Findings], folder: Path) -> None:
    _, val = own_paths(str(folder / "prepared"))
    assert len(val) == 3
    expected = validation(ALONE, val)
    assert 0 < expected["val_dice"] < 1
    for found in findings:
        assert found["validation"] == pytest.approx(expected, rel=1e-6)


def test_a_worker_without_a_validation_case_reports_what_the_others_found(
    findings: list[Findings], folder: Path
) -> None:
    _, val = own_paths(str(folder / "prepared"))
    expected = validation(ALONE, val[:1])
    for found in findings:
        assert found["idle validation"] == pytest.approx(expected, rel=1e-6)


def test_an_encoder_with_unused_parameters_trains_on_two_workers(findings: list[Findings], folder: Path) -> None:
    """No gradient comes for them."""
    losses = [[row["train_loss"] for row in found["run"]["unused"]] for found in findings]
    assert len(losses[0]) == 1
    assert losses[0] == losses[1]
    checkpoint = load_checkpoint(str(folder / "unused"))
    assert checkpoint is not None
    assert "encoder._conv_head.weight" in checkpoint.weights


def test_in_a_run_each_worker_validates_cases_of_its_own_on_the_same_weights_and_statistics(
    findings: list[Findings],
) -> None:
    (first_paths, first), (second_paths, second) = (found["run"]["validated"] for found in findings)
    assert first_paths == ["val10.parquet", "val9.parquet"]
    assert second_paths == ["val8.parquet"]
    assert first
    floats = [name for name, buffer in first.items() if buffer.is_floating_point()]
    assert all(torch.equal(first[name], second[name]) for name in floats)
    assert any(name.endswith("running_var") for name in floats)
    assert any(name.endswith("weight") for name in floats)


FIGURES = ("epoch", "train_loss", "learning_rate", "n_slices", "val_loss", "val_dice")


def test_every_worker_returns_the_same_figures_and_one_history_is_written(
    findings: list[Findings], folder: Path
) -> None:
    first, second = (found["run"]["whole"] for found in findings)
    assert [[row[name] for name in FIGURES] for row in first] == [[row[name] for name in FIGURES] for row in second]
    assert [row["n_slices"] for row in first] == [30, 30]
    assert read_history(str(folder / "whole")).to_dict("records") == first


def test_two_workers_resume_to_the_weights_of_an_uninterrupted_run(findings: list[Findings], folder: Path) -> None:
    for found in findings:
        assert found["run"]["interrupted"].startswith("BratsError: the batches end before step 2 of epoch 2")
        assert len(found["run"]["parts"]) == 2
    whole, parts = (load_checkpoint(str(folder / name)) for name in ("whole", "parts"))
    assert whole is not None
    assert parts is not None
    torch.testing.assert_close(parts.weights, whole.weights, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(parts.average, whole.average, rtol=0, atol=0)
    torch.testing.assert_close(parts.optimiser, whole.optimiser, rtol=1e-6, atol=1e-6)


def test_a_loss_that_is_not_finite_on_one_worker_stops_both_and_keeps_the_epoch_before(
    findings: list[Findings], folder: Path
) -> None:
    first, second = (found["run"]["diverged"] for found in findings)
    assert first == second
    assert re.match(rf"{DivergedError.__name__}: epoch 2, step [1-3]: the loss is no longer", first)
    assert saved_epochs(str(folder / "diverged")) == [1]
    checkpoint = load_checkpoint(str(folder / "diverged"))
    assert checkpoint is not None
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.weights.values())


@pytest.mark.parametrize("name", ["minutes", "spaced"])
def test_rank_0_has_the_only_clock(findings: list[Findings], folder: Path, name: str) -> None:
    """Its readings are a second apart. Rank 1, by its own clock, would be over at once."""
    first, second = ([dict(row, peak_memory_mb=0) for row in found["run"][name]] for found in findings)
    assert first == second
    assert all(row["elapsed_s"] >= row["train_s"] for row in first)
    assert read_history(str(folder / name))["epoch"].tolist() == [row["epoch"] for row in first]


def test_two_workers_use_up_their_minutes(findings: list[Findings]) -> None:
    history = findings[0]["run"]["minutes"]
    assert 28 <= sum(row["elapsed_s"] for row in history) <= 30
    assert len(history) > 2


def test_two_workers_space_their_validations_alike(findings: list[Findings]) -> None:
    history = findings[0]["run"]["spaced"]
    assert sum(row["n_steps"] for row in history) == 18
    validated = [row["val_dice"] is not None for row in history]
    assert validated[-1]
    assert not all(validated)


def test_two_workers_train_in_fp16_with_a_scaled_loss(findings: list[Findings], folder: Path) -> None:
    losses = [[row["train_loss"] for row in found["run"]["fp16"]] for found in findings]
    exact = [row["train_loss"] for row in findings[0]["run"]["small"]]
    assert losses[0] == losses[1] == pytest.approx(exact, rel=0.01)
    checkpoint = load_checkpoint(str(folder / "fp16"))
    assert checkpoint is not None
    assert checkpoint.scaler["_growth_tracker"] == 8  # no step was skipped
