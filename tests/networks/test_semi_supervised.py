import copy
import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.models.averaging import WeightAverage
from lightning_gen.networks.semi_supervised import (
    GaussianNoise,
    SGANConvDiscriminator,
    SGANConvGenerator,
    SGANMLPDiscriminator,
    SGANMLPGenerator,
)

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


def trained(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def test_trained_parameters_are_those_of_the_published_code() -> None:
    # Weights and biases of every layer, gains of the last one alone, counted by hand from train_mnist_*.py and
    # train_cifar_feature_matching.py.
    widths = [784, 1000, 500, 250, 250, 250, 10]
    expected = sum(a * b + b for a, b in pairwise(widths)) + 10
    assert trained(SGANMLPDiscriminator(MNIST, 10)) == expected
    # weights and batch norm's biases, then weights, biases and gains of the pixels
    assert trained(SGANMLPGenerator(MNIST, 100)) == (100 * 500 + 500) + (500 * 500 + 500) + (500 * 784 + 2 * 784)
    convolutions = [(3, 96, 9), (96, 96, 9), (96, 96, 9), (96, 192, 9), (192, 192, 9), (192, 192, 9), (192, 192, 9)]
    convolutions += [(192, 192, 1), (192, 192, 1)]
    expected = sum(a * b * k + b for a, b, k in convolutions) + 192 * 10 + 2 * 10
    assert trained(SGANConvDiscriminator(CIFAR, 10)) == expected
    expected = 100 * 8192 + 8192 + (512 * 256 * 25 + 256) + (256 * 128 * 25 + 128) + (128 * 3 * 25 + 2 * 3)
    assert trained(SGANConvGenerator(CIFAR, 100)) == expected


@pytest.mark.parametrize(
    "discriminator",
    [
        SGANMLPDiscriminator((3, 20, 12), 7, hidden=[8, 6]),
        SGANConvDiscriminator((3, 20, 12), 7, base_channels=4),
    ],
)
def test_the_logit_is_the_log_of_the_sum_over_classes(discriminator: SGANMLPDiscriminator) -> None:
    images = torch.rand(5, 3, 20, 12) * 2 - 1
    discriminator.train()
    output = discriminator(images)
    assert output.heads["classes"].shape == (5, 7)
    assert output.features.shape == (5, discriminator.num_features)
    # The noise of training was drawn once for both.
    torch.testing.assert_close(output.logits, output.heads["classes"].exp().sum(1).log())


def test_the_first_batch_sets_mean_and_deviation_of_every_units_output() -> None:
    torch.manual_seed(0)
    images = torch.rand(64, 3, 20, 12) * 2 - 1
    quiet = {"input_noise": 0.0, "hidden_noise": 0.0}  # else the pass that measures would draw other noise
    deep = SGANConvDiscriminator((3, 20, 12), 7, base_channels=4, input_dropout=0.0, dropout=0.0)
    for network, last in (
        (SGANMLPDiscriminator((3, 20, 12), 7, hidden=[8, 6], **quiet), 1.0),
        (deep, 0.1),  # init_stdv of the last layer in train_cifar_feature_matching.py
    ):
        network.eval()
        network.initialize_from_data(images)
        assert not network.training
        outputs: list[torch.Tensor] = []
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        keep = partial(lambda kept, *call: kept.append(call[2].transpose(0, 1)), outputs)
        hooks = [layer.register_forward_hook(keep) for layer in layers]
        network(images)
        for hook in hooks:
            hook.remove()
        assert len(outputs) == len(layers) > 2
        for output in outputs:
            values = output.flatten(1)
            torch.testing.assert_close(values.mean(1), torch.zeros(len(values)), atol=1e-5, rtol=0)
            expected = torch.full((len(values),), last if output is outputs[-1] else 1.0)
            torch.testing.assert_close(values.std(1, correction=0), expected, atol=1e-4, rtol=0)


def test_noise_is_drawn_in_training_and_not_in_evaluation() -> None:
    noise = GaussianNoise(0.5)
    inputs = torch.ones(200, 500)
    torch.manual_seed(0)
    drawn = noise(inputs)
    assert drawn.mean().item() == pytest.approx(1, abs=0.01)
    assert drawn.std().item() == pytest.approx(0.5, rel=0.01)
    assert torch.equal(noise.eval()(inputs), inputs)
    for network in (SGANMLPDiscriminator(MNIST, 10, hidden=[8]), SGANConvDiscriminator(CIFAR, 10, base_channels=4)):
        images = torch.rand(2, *(MNIST if isinstance(network, SGANMLPDiscriminator) else CIFAR))
        assert not torch.equal(network(images).logits, network(images).logits)
        network.eval()
        assert torch.equal(network(images).logits, network(images).logits)


def test_pixels_enter_the_first_layer_between_zero_and_one() -> None:
    discriminator = SGANMLPDiscriminator((1, 2, 2), 3, hidden=[4])
    images = torch.tensor([[[[-1.0, 1.0], [0.0, 0.5]]]])
    assert discriminator.prepare_input(images, None).tolist() == [[0.0, 1.0, 0.5, 0.75]]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 12)])
def test_flat_generators_make_images_of_any_shape(shape: tuple[int, int, int]) -> None:
    images = SGANMLPGenerator(shape, 5, hidden=[8])(torch.rand(4, 5))
    assert images.shape == (4, *shape)
    assert images.abs().max() <= 1


@pytest.mark.parametrize("size", [16, 32, 64])
def test_convolutional_generators_double_up_to_the_size(size: int) -> None:
    images = SGANConvGenerator((3, size, size), 5, base_channels=8)(torch.rand(4, 5))
    assert images.shape == (4, 3, size, size)
    assert images.abs().max() <= 1


def test_the_mean_of_the_latents_does_not_matter() -> None:
    torch.manual_seed(0)
    generator = SGANMLPGenerator((1, 4, 4), 5, hidden=[8, 8])
    latents = torch.rand(50, 5)
    torch.testing.assert_close(generator(latents), generator(latents - 0.5))


def test_sizes_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.image_size"):
        SGANConvGenerator((3, 28, 28), 5)
    with pytest.raises(UserError, match=r"data\.image_size"):
        SGANConvDiscriminator((3, 8, 8), 10)
    SGANConvDiscriminator((3, 9, 9), 10, base_channels=2)(torch.zeros(1, 3, 9, 9))


def test_layers_begin_with_outputs_of_the_published_spread() -> None:
    torch.manual_seed(0)
    latents = torch.rand(50, 100)
    before_tanh = SGANConvGenerator(CIFAR, 100).layers[:-1](latents)
    assert before_tanh.std().item() == pytest.approx(0.1, rel=0.2)
    discriminator = SGANConvDiscriminator((3, 32, 32), 10).eval()
    images = torch.rand(20, 3, 32, 32) * 2 - 1
    discriminator.initialize_from_data(images)
    logits = discriminator(images).heads["classes"]
    assert 0.01 < logits.std().item() < 0.3


def test_every_unit_is_normalized_over_its_inputs() -> None:
    linear = SGANMLPDiscriminator(MNIST, 10).blocks[0][1]
    torch.testing.assert_close(linear.weight.norm(dim=1), torch.ones(1000))
    convolution = SGANConvDiscriminator(CIFAR, 10, base_channels=8).blocks[0][1]
    torch.testing.assert_close(convolution.weight.flatten(1).norm(dim=1), torch.ones(8))
    transposed = SGANConvGenerator(CIFAR, 10, base_channels=8).layers[-2]
    assert transposed.weight.shape == (2, 3, 5, 5)
    norms = transposed.weight.transpose(0, 1).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.full((3,), 0.1 * math.sqrt(8)))


def test_weight_normalization_survives_copies_and_swapped_averages() -> None:
    torch.manual_seed(0)
    network = SGANMLPDiscriminator((1, 4, 4), 3, hidden=[5])
    images = torch.rand(2, 1, 4, 4)
    start = copy.deepcopy(network).eval()
    average = WeightAverage({"network": network}, half_life_images=10, rampup_ratio=None)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    network.eval()
    own = network(images).logits
    average.update({"network": network}, images=10, images_seen=10)
    # Directions and gains are averaged apart: half of 1 and half of 3 is 2 of each.
    expected = copy.deepcopy(start)
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.mul_(2)
    with average.swapped_in({"network": network}):
        torch.testing.assert_close(network(images).logits, expected(images).logits)
        assert not torch.equal(network(images).logits, own)
        assert not torch.equal(network(images).logits, start(images).logits)
    assert torch.equal(network(images).logits, own)
