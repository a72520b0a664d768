"""The averaged network: hand-computed averages, what is averaged, and when the decay is short."""

import torch
from torch import nn

from brats.model.average import AveragedNetwork, decay_at
from tests.support.prepared import CPU


def network() -> nn.Module:
    """A weight of 1, a BatchNorm with a mean of 0, and a count."""
    found = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    nn.init.constant_(found.get_parameter("0.weight"), 1.0)
    return found


@torch.no_grad()
def test_two_steps_with_other_decays_give_what_is_computed_by_hand() -> None:
    followed = network()
    average = AveragedNetwork.of(followed, CPU)
    for weight, mean, decay in ((3.0, 8.0, 0.5), (6.0, 0.0, 0.75)):
        followed.get_parameter("0.weight").fill_(weight)
        followed.get_buffer("1.running_mean").fill_(mean)
        average.set_decay(decay)
        average.follow()
    assert average.network.get_parameter("0.weight").item() == 0.75 * (0.5 * 1 + 0.5 * 3) + 0.25 * 6
    assert average.network.get_buffer("1.running_mean").item() == 0.75 * (0.5 * 0 + 0.5 * 8) + 0.25 * 0
    assert average.network.get_buffer("1.running_var").item() == 1
    assert followed.get_parameter("0.weight").item() == 6


def test_the_decay_is_short_in_the_first_steps_and_never_above_its_own() -> None:
    assert [decay_at(step, 0.998) for step in (0, 1, 8)] == [1 / 10, 2 / 11, 9 / 18]
    assert decay_at(4489, 0.998) == 4490 / 4499 < 0.998
    assert decay_at(4491, 0.998) == decay_at(10**6, 0.998) == 0.998
    assert decay_at(5, 0) == 0


def test_an_average_begins_with_the_network_and_takes_no_gradient_from_it() -> None:
    followed = network()
    followed(torch.randn(2, 1, 4, 4)).sum().backward()
    average = AveragedNetwork.of(followed, CPU)
    torch.testing.assert_close(average.network.state_dict(), followed.state_dict(), rtol=0, atol=0)
    assert not average.network.training
    assert all(parameter.grad is None for parameter in average.network.parameters())
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert all(parameter.grad is not None for parameter in followed.parameters())


def test_the_average_stays_in_the_tensors_that_it_began_in() -> None:
    """A captured step writes to them for good."""
    followed = network()
    average = AveragedNetwork.of(followed, CPU)
    before = [tensor.data_ptr() for tensor in average.network.state_dict().values()]
    share = average.share.data_ptr()
    average.set_decay(0.5)
    average.follow()
    average.network.load_state_dict(followed.state_dict())
    assert [tensor.data_ptr() for tensor in average.network.state_dict().values()] == before
    assert average.share.data_ptr() == share
