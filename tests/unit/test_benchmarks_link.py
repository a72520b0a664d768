"""The limited link, the model of the T4, and what machines with T4s cost, against hand-computed values."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.support import ROOT

sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks import link
from benchmarks.command import run_benchmark
from benchmarks.cost import ENOUGH_SPEEDUP, FOUR, ONE, RECOMMENDED, TWO, WIRE, paper, slices_per_s, speedup, step_s
from benchmarks.exchange import BYTES_ALONE, FLAT, FLAT_16, IN_BUCKETS, Exchanges
from benchmarks.harness import BenchmarkError
from benchmarks.t4 import DECODER, ENCODERS, SIZE, T4, Card, Fit, Kernel, Step, fit_h100, t4_range, training_step

RESNET, LITE = ENCODERS
FIT = Fit(kernel_s=1e-6, fraction=0.5, deviation=0)


def test_slowest_of_bytes_and_operations_decides_for_each_kernel() -> None:
    card = Card(n_bytes=10, n_matrix=100, n_vector=5)
    kernels = [Kernel(n_bytes=20), Kernel(n_bytes=10, n_matrix=400), Kernel(n_bytes=10, n_vector=30)]
    assert card.seconds(Step(kernels=kernels, n_slices=1, n_weights=1)) == 2 + 4 + 6


def test_operations_of_a_step_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from brats.model.unet import build_unet

    network = build_unet(encoder=RESNET, n_channels=4, decoder_channels=DECODER).to("meta")
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, 4, *SIZE, device="meta")).sum().backward()
    assert training_step(RESNET, 2).n_flop == counter.get_total_flops()


def test_operations_are_in_proportion_to_the_slices_and_kernels_are_not() -> None:
    few, many = training_step(RESNET, 8), training_step(RESNET, 32)
    assert many.n_flop == 4 * few.n_flop
    assert len(many.kernels) == len(few.kernels)
    assert few.n_bytes < many.n_bytes < 4 * few.n_bytes  # weights and optimiser do not grow


def test_weights_that_are_exchanged_are_those_that_are_trained() -> None:
    assert training_step(RESNET, 1).n_weights == 24_439_795
    assert training_step(LITE, 1).n_weights == 5_203_347  # without the classifier's last layer, 412,160


def test_depthwise_convolutions_are_no_work_of_tensor_cores() -> None:
    assert not any(kernel.n_vector for kernel in training_step(RESNET, 1).kernels)
    assert sum(kernel.n_vector > 0 for kernel in training_step(LITE, 1).kernels) == 3 * 16  # blocks, three passes


def test_line_through_the_h100_agrees_with_each_of_its_measurements() -> None:
    fit = fit_h100()
    assert fit.deviation < 0.05
    assert 0 < fit.fraction < 1
    assert 0 < fit.kernel_s < 1e-5


def test_slow_t4_is_the_slower_one() -> None:
    slow, fast = t4_range()
    assert slow.fraction < fit_h100().fraction < fast.fraction


def test_one_card_exchanges_nothing() -> None:
    assert step_s(FIT, LITE, 16, ONE, 4) == FIT.seconds(training_step(LITE, 16), T4)


def test_two_cards_compute_half_each_and_send_all_gradients_once() -> None:
    step = training_step(RESNET, 32)
    n_bytes = 2 * step.n_weights
    copies_s = 2 * (4 * step.n_weights + n_bytes) / 160e9  # half of 320 GB/s
    expected = FIT.seconds(step, T4) + copies_s + 2e-4 + n_bytes * 8 / 25e9
    assert step_s(FIT, RESNET, 64, TWO[25], 2) == pytest.approx(expected)


def test_four_cards_send_one_and_a_half_times_their_gradients() -> None:
    wider = replace(FOUR, gbit_s=2 * FOUR.gbit_s)
    saved_s = step_s(FIT, RESNET, 64, FOUR, 2) - step_s(FIT, RESNET, 64, wider, 2)
    assert saved_s == pytest.approx(1.5 * 24_439_795 * 16 / 48e9 / 2)


def test_bursts_do_not_raise_the_average_over_the_baseline() -> None:
    """98 MB of gradients and 8 slices a step: the network is asked for more than 5 Gbit/s all the time."""
    assert step_s(FIT, RESNET, 16, TWO[25], 4) == pytest.approx(24_439_795 * 32 / 5e9)


def test_hidden_exchange_takes_the_longer_of_both() -> None:
    hidden = step_s(FIT, LITE, 64, TWO[10], 2, overlapped=True)
    assert hidden == FIT.seconds(training_step(LITE, 32), T4)
    assert hidden < step_s(FIT, LITE, 64, TWO[10], 2)


def test_speed_up_is_that_of_equal_batches_and_cards() -> None:
    alone, together = slices_per_s(LITE, 32, ONE, 2), slices_per_s(LITE, 32, TWO[10], 2)
    ratios = [both / one for one, both in zip(alone, together, strict=True)]
    assert speedup(LITE, 32, TWO[10], 2) == (min(ratios), max(ratios))


def test_recommended_shape_is_worth_its_second_card_even_at_the_low_end() -> None:
    encoder, batch, shape = RECOMMENDED
    assert shape.cards == 2
    assert speedup(encoder, batch, shape, WIRE["fp16"])[0] >= ENOUGH_SPEEDUP


def test_paper_prices_every_shape_and_lists_its_assumptions() -> None:
    lines = paper()
    assert lines[f"{LITE}, batch 64, {ONE.name}"].count("USD per million slices") == 1
    assert lines[f"{LITE}, batch 64, {TWO[25].name}"].count("USD per million slices") == len(WIRE)
    assert sum(name.startswith("assumption") for name in lines) == 9


def test_exchange_is_described_by_what_it_takes_and_carries() -> None:
    ways = {
        name: Exchanges(seconds=[0.1, 0.1], sent=5e6, cpu_s=0.02)
        for name in (IN_BUCKETS, FLAT, *FLAT_16, BYTES_ALONE)
    }
    found = link.describe(1_000_000, ways)
    assert found[FLAT] == "100 (100 to 100, n 2) ms, best 100, 5.0 MB sent, 0.32 Gbit/s, 20 ms of CPU at this end"
    assert "0.16 Gbit/s" in found[link.OURS]
    rows = list(link.rows_of(5, LITE, 1_000_000, ways))
    assert [row.peer_value for row in rows] == pytest.approx([100, 100, 3.2])  # 16 Mbit at 5 Gbit/s


def test_without_root_the_link_is_skipped_in_one_line_and_the_paper_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["link"])
    run_benchmark(link.measure)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "link: skipped, network namespaces need root"
    assert any(line.startswith("  model: ") for line in rest)


@pytest.fixture
def root() -> None:
    reason = link.why_not()
    if reason:
        pytest.skip(reason)


def namespaces() -> set[str]:
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in done.stdout.splitlines()}


@pytest.mark.usefixtures("root")
def test_nothing_of_a_link_remains_when_what_uses_it_fails() -> None:
    made: set[str] = set()

    def fail_on_the_link() -> None:
        with link.limited_link(5) as names:
            made.update(set(names) & namespaces())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_on_the_link()
    assert len(made) == 2
    assert made.isdisjoint(namespaces())


@pytest.mark.usefixtures("root")
def test_namespace_of_a_run_that_was_killed_is_removed_by_the_next() -> None:
    left = f"{link.PREFIX}a-99999999"  # no process has so high a number
    link.ip("netns", "add", left)
    link.remove_leftovers()
    assert left not in namespaces()


@pytest.mark.medium
@pytest.mark.usefixtures("root")
def test_two_processes_exchange_gradients_over_the_link() -> None:
    """In every way, with the bytes that left counted on it."""
    found = link.exchanges(1, {"small": 100_000}, rounds=2)["small"]
    assert set(found) == {IN_BUCKETS, FLAT, *FLAT_16, BYTES_ALONE}
    assert all(len(measured.seconds) == 2 for measured in found.values())
    for name, n_bytes in {IN_BUCKETS: 400_000, FLAT: 400_000, link.OURS: 200_000, BYTES_ALONE: 200_000}.items():
        assert n_bytes < found[name].sent < 1.2 * n_bytes, name
    assert not any(name.startswith(link.PREFIX) for name in namespaces())


def test_command_that_the_system_refuses_is_one_line_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = subprocess.CompletedProcess(["ip"], 1, "", "Operation not permitted\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: refused)
    with pytest.raises(BenchmarkError, match=r"^`ip netns add a`: Operation not permitted$"):
        link.ip("netns", "add", "a")
