from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.networks.mlp import Maxout, MaxoutDiscriminator, MLPGenerator
from tests.networks.checks import count, without_gradient

MNIST = (1, 28, 28)


def test_a_maxout_unit_is_the_largest_of_its_linear_functions() -> None:
    layer = Maxout(2, units=2, pieces=2)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, -1.0]]))
        layer.linear.bias.copy_(torch.tensor([0.0, 0.5, 0.0, 1.0]))
    # unit 1: max(x, y + 0.5); unit 2: max(x + y, 1 - x - y)
    outputs = layer(torch.tensor([[3.0, 1.0], [0.0, 0.0], [-2.0, -3.0]]))
    assert torch.equal(outputs, torch.tensor([[3.0, 4.0], [0.5, 1.0], [-2.0, 6.0]]))


def test_parameter_counts_on_mnist_are_the_papers() -> None:
    # generator: 100*1200+1200 + 1200*1200+1200 + 1200*784+784
    assert count(MLPGenerator(MNIST, 100)) == 121_200 + 1_441_200 + 941_584
    # discriminator: 784*(240*5)+1200 + 240*(240*5)+1200 + 240+1
    assert count(MaxoutDiscriminator(MNIST)) == 942_000 + 289_200 + 241


def test_parameter_counts_of_conditional_gan_are_the_papers() -> None:
    # generator: latents 100*200+200, label 10*1000+1000, both 1200*1200+1200, pixels 1200*784+784
    assert count(MLPGenerator(MNIST, 100, num_classes=10)) == 20_200 + 11_000 + 1_441_200 + 941_584
    # discriminator: pixels 784*(240*5)+1200, label 10*(50*5)+250, both 290*(240*4)+960, logit 240+1
    assert count(MaxoutDiscriminator(MNIST, num_classes=10)) == 942_000 + 2_750 + 279_360 + 241


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 6, 4)])
def test_images_of_any_shape(shape: tuple[int, int, int], num_classes: int | None) -> None:
    labels = None if num_classes is None else torch.tensor([0, 1, 2, 2])
    generator = MLPGenerator(shape, 5, num_classes, hidden=(12, 8), label_units=4)
    images = generator(torch.randn(4, 5), labels)
    assert images.shape == (4, *shape)
    assert images.abs().max() <= 1
    discriminator = MaxoutDiscriminator(shape, num_classes, units=6, label_units=3)
    output = discriminator(images, labels)
    assert output.logits.shape == (4,)
    assert output.features.shape == (4, discriminator.num_features) == (4, 6)
    assert [maps.shape for maps in discriminator.feature_maps(images, labels)] == [
        (4, 6 + 3 * bool(num_classes)),
        (4, 6),
    ]


@pytest.mark.parametrize("num_classes", [None, 3])
def test_every_parameter_has_a_gradient(num_classes: int | None) -> None:
    torch.manual_seed(0)
    labels = None if num_classes is None else torch.arange(48) % 3
    generator = MLPGenerator((1, 4, 4), 5, num_classes, hidden=(12, 8), label_units=4)
    images = generator(torch.randn(48, 5), labels)
    assert without_gradient(generator, images) == []
    discriminator = MaxoutDiscriminator((1, 4, 4), num_classes, units=6, label_units=3)
    assert without_gradient(discriminator, discriminator(images.detach(), labels).logits) == []


def test_initial_weights_are_uniform_in_the_papers_ranges() -> None:
    torch.manual_seed(0)
    for network, limit in ((MLPGenerator(MNIST, 100), 0.05), (MaxoutDiscriminator(MNIST, num_classes=10), 0.005)):
        for module in network.modules():
            if isinstance(module, nn.Linear):
                assert module.bias.abs().max() == 0
                assert module.weight.abs().max() <= limit
        weights = torch.cat([p.detach().flatten() for p in network.parameters() if p.ndim > 1])
        assert weights.std() == pytest.approx(limit / 3**0.5, rel=0.01)


def test_the_label_alone_reaches_the_units_that_are_its_own() -> None:
    generator = MLPGenerator((1, 2, 2), 5, num_classes=3, hidden=(12,), label_units=4).eval()
    layer = generator.layers[0]
    first, second = (layer(torch.cat([torch.randn(1, 5), torch.eye(3)[:1]], 1)) for _ in range(2))
    assert torch.equal(first[:, 8:], second[:, 8:])
    assert not torch.equal(first[:, :8], second[:, :8])


def test_pixels_are_dropped_but_never_the_label() -> None:
    torch.manual_seed(0)
    discriminator = MaxoutDiscriminator((1, 8, 8), 3, units=4, label_units=2, input_dropout=0.5, dropout=0.0)
    images, labels = torch.ones(1, 1, 8, 8), torch.tensor([1])
    first, second = (discriminator.feature_maps(images, labels)[0] for _ in range(2))
    assert torch.equal(first[:, 4:], second[:, 4:])
    assert not torch.equal(first[:, :4], second[:, :4])


def test_networks_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.generator\.hidden"):
        MLPGenerator(MNIST, 10, hidden=())
    with pytest.raises(UserError, match=r"model\.generator\.label_units=12"):
        MLPGenerator(MNIST, 10, num_classes=3, hidden=(12, 8), label_units=12)
    with pytest.raises(UserError, match=r"model\.discriminator\.layers must be at least 2"):
        MaxoutDiscriminator(MNIST, num_classes=3, layers=1)
    with pytest.raises(UserError, match=r"model\.discriminator\.layers must be at least 1"):
        MaxoutDiscriminator(MNIST, layers=0)


def test_without_a_range_weights_are_those_of_torch() -> None:
    for network in (
        MLPGenerator((1, 8, 8), 4, hidden=(256,), weight_range=None),
        MaxoutDiscriminator((1, 8, 8), units=128, pieces=2, weight_range=None),
    ):
        for module in network.modules():
            if isinstance(module, nn.Linear):
                limit = module.in_features**-0.5
                assert 0.5 * limit < module.weight.abs().max() <= limit
                assert module.bias.abs().max() > 0


def test_batch_norm_stands_between_each_hidden_layer_and_its_relu() -> None:
    torch.manual_seed(0)
    network = MLPGenerator((1, 4, 4), 3, num_classes=5, hidden=(8, 6), label_units=2, norm="batch")
    inputs: list[torch.Tensor] = []
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(lambda _, args: inputs.append(args[0].clone()))
    network(torch.randn(64, 3), torch.arange(64) % 5)
    assert [values.shape[1] for values in inputs] == [8, 6]
    for values in inputs:
        torch.testing.assert_close(values.mean(0), torch.zeros(values.shape[1]), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match=r"model\.generator\.norm"):
        MLPGenerator((1, 4, 4), 3, norm="layer")  # type: ignore[arg-type]
