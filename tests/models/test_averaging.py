import pytest
import torch
from torch import nn

from lightning_gen.models.averaging import WeightAverage


def linear(value: float) -> nn.Linear:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, value)
    return network


def test_half_of_the_average_is_new_after_a_half_life() -> None:
    average = WeightAverage({"g": linear(0.0)}, half_life_images=1000, rampup_ratio=None)
    followed = {"g": linear(1.0)}
    for _ in range(10):
        average.update(followed, images=100, images_seen=10**9)
    assert average.networks["g"].weight.item() == pytest.approx(0.5, abs=1e-6)
    for _ in range(10):
        average.update(followed, images=100, images_seen=10**9)
    assert average.networks["g"].weight.item() == pytest.approx(0.75, abs=1e-6)


def test_the_batch_size_does_not_matter() -> None:
    averages = []
    for images in (50, 500):
        average = WeightAverage({"g": linear(0.0)}, half_life_images=777, rampup_ratio=None)
        for _ in range(1000 // images):
            average.update({"g": linear(1.0)}, images, images_seen=10**9)
        averages.append(average.networks["g"].weight.item())
    assert averages[0] == pytest.approx(averages[1], abs=1e-6)


def test_early_weights_fade_faster() -> None:
    average = WeightAverage({"g": linear(0.0)}, half_life_images=10**6, rampup_ratio=0.1)
    # half-life min(10**6, 0.1 * 640) = 64 images, so 64 images keep a half
    assert average.keep(64, images_seen=640) == pytest.approx(0.5)
    assert average.keep(64, images_seen=10**9) == pytest.approx(0.5 ** (64 / 10**6))


def test_buffers_are_copied_not_averaged() -> None:
    norm = nn.BatchNorm1d(2)
    average = WeightAverage({"g": norm}, half_life_images=1000, rampup_ratio=None)
    assert norm.running_mean is not None
    norm.running_mean.fill_(5.0)
    average.update({"g": norm}, images=1, images_seen=1000)
    assert average.networks["g"].running_mean.tolist() == [5.0, 5.0]


def test_swapping_in_is_undone_to_the_bit_and_keeps_the_parameters() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = WeightAverage({"g": network}, half_life_images=100)
    with torch.no_grad():
        network[0].weight.add_(1.0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    parameters = list(network.parameters())
    averaged = average.networks["g"][0].weight.clone()
    with pytest.raises(RuntimeError), average.swapped_in({"g": network}):
        assert torch.equal(network[0].weight, averaged)
        raise RuntimeError
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(now is then for now, then in zip(network.parameters(), parameters, strict=True))


def test_averages_do_not_train() -> None:
    average = WeightAverage({"g": linear(0.0)}, half_life_images=100)
    assert not any(parameter.requires_grad for parameter in average.parameters())
