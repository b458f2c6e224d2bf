from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from lightning_gen.networks.infogan import InfoGANDiscriminator
from lightning_gen.networks.virtual_batch_norm import ReferenceDiscriminator, ReferenceGenerator, VirtualBatchNorm
from tests.networks.checks import without_gradient


def test_one_layer_equals_statistics_collected_by_hand() -> None:
    norm = nn.BatchNorm1d(1)
    with torch.no_grad():
        norm.weight.fill_(3.0)
        norm.bias.fill_(0.5)
    layer = VirtualBatchNorm(norm, reference_size=3)
    # reference 0, 3, 6: mean 3, variance 6; with x = 7: mean 3/4 * 3 + 1/4 * 7 = 4,
    # mean square 3/4 * (0 + 9 + 36) / 3 + 1/4 * 49 = 23.5, variance 23.5 - 16 = 7.5
    outputs = layer(torch.tensor([[0.0], [3.0], [6.0], [7.0]]))
    expected = [-3 / 6.00001**0.5, 0.0, 3 / 6.00001**0.5, 3 / 7.50001**0.5]
    torch.testing.assert_close(outputs[:, 0], torch.tensor([3 * value + 0.5 for value in expected]))


def test_maps_have_one_mean_and_mean_square_over_all_places() -> None:
    torch.manual_seed(0)
    layer = VirtualBatchNorm(nn.BatchNorm2d(2, affine=False), reference_size=4).double()
    inputs = torch.randn(6, 2, 3, 3, dtype=torch.float64) + 5
    outputs = layer(inputs.to(memory_format=torch.channels_last))
    for sample in (4, 5):
        for channel in (0, 1):
            reference, own = inputs[:4, channel], inputs[sample, channel]
            mean = 0.8 * reference.mean() + 0.2 * own.mean()
            square = 0.8 * (reference**2).mean() + 0.2 * (own**2).mean()
            expected = (own - mean) / (square - mean**2 + 1e-5).sqrt()
            torch.testing.assert_close(outputs[sample, channel], expected)
    expected = nn.functional.batch_norm(inputs[:4], None, None, training=True)
    torch.testing.assert_close(outputs[:4], expected)


def generator(num_classes: int | None = None) -> ReferenceGenerator:
    torch.manual_seed(0)
    labels = None if num_classes is None else torch.tensor([0, 1, 0])
    network = DCGANGenerator((1, 32, 32), latent_dim=4, base_channels=2, num_classes=num_classes)
    return ReferenceGenerator(network, torch.randn(3, 4), labels)


def discriminator(num_classes: int | None = None) -> ReferenceDiscriminator:
    torch.manual_seed(0)
    labels = None if num_classes is None else torch.tensor([0, 1, 0])
    network = DCGANDiscriminator((1, 32, 32), base_channels=2, num_classes=num_classes)
    wrapped = ReferenceDiscriminator(network, torch.zeros(3, 1, 32, 32), labels)
    wrapped.set_reference(torch.rand(3, 1, 32, 32), labels)
    return wrapped


@pytest.mark.parametrize("num_classes", [None, 2])
def test_a_sample_does_not_depend_on_the_others_nor_on_the_mode(num_classes: int | None) -> None:
    labels = None if num_classes is None else torch.tensor([0, 1, 1, 0, 1])
    inputs = torch.randn(5, 4), torch.rand(5, 1, 32, 32)
    for network, given in zip((generator(num_classes), discriminator(num_classes)), inputs, strict=True):
        outputs: list[Tensor] = []
        for chosen in (slice(0, 5), slice(2, 3), slice(1, 4)):
            output = network(given[chosen], None if labels is None else labels[chosen])
            output = output if isinstance(output, Tensor) else output.logits
            outputs.append(output[{0: 2, 2: 0, 1: 1}[chosen.start]])
        assert outputs[0].abs().max() > 1e-3
        for output in outputs[1:]:
            torch.testing.assert_close(output, outputs[0], rtol=1e-5, atol=1e-6)
        trained = network(given, labels)
        evaluated = network.eval()(given, labels)
        if isinstance(trained, Tensor):
            assert torch.equal(trained, evaluated)
        else:
            assert torch.equal(trained.logits, evaluated.logits)


def test_the_reference_matters_and_has_a_gradient() -> None:
    network = discriminator()
    images = torch.rand(2, 1, 32, 32)
    before = network(images).logits
    network.set_reference(-torch.rand(3, 1, 32, 32), None)
    assert not torch.allclose(network(images).logits, before, rtol=0.01)
    assert without_gradient(network, network(images).logits) == []
    network = generator()
    assert without_gradient(network, network(torch.randn(2, 4))) == []


def test_the_discriminator_is_one_with_all_its_parts() -> None:
    network = discriminator()
    network.add_head("codes", 5, hidden=3)
    assert network.num_features == 128
    assert network.num_classes is None
    assert network.batch_features is None
    images = torch.rand(2, 1, 32, 32)
    output = network(images)
    assert output.logits.shape == (2,)
    assert output.features.shape == (2, 128)
    assert output.heads["codes"].shape == (2, 5)
    maps = network.feature_maps(images)
    assert [m.shape for m in maps] == [(2, 2, 16, 16), (2, 4, 8, 8), (2, 8, 4, 4)]
    torch.testing.assert_close(maps[-1].flatten(1), output.features)
    assert network.heads["codes"][0].weight.std().item() == pytest.approx(0.02, rel=0.2), "as the wrapped one draws"
    with pytest.raises(AttributeError):
        network.classify  # noqa: B018


@pytest.mark.parametrize("make", [generator, discriminator])
def test_copies_and_state_dicts_carry_the_reference(make: type) -> None:
    network = make(2).to(memory_format=torch.channels_last)
    given = torch.randn(2, 4) if make is generator else torch.rand(2, 1, 32, 32)
    labels = torch.tensor([1, 0])

    def outputs(of: nn.Module) -> Tensor:
        found = of(given, labels)
        return found if isinstance(found, Tensor) else found.logits

    copied = copy.deepcopy(network)
    assert torch.equal(outputs(copied), outputs(network))
    with torch.no_grad():
        for tensor in (*copied.parameters(), *copied.buffers()):
            tensor.zero_()
    assert not torch.allclose(outputs(copied), outputs(network))
    copied.load_state_dict(network.state_dict())
    assert torch.equal(outputs(copied), outputs(network))


def test_networks_that_have_no_plain_batch_norm_are_refused() -> None:
    class ConditionalBatchNorm2d(nn.Module):
        pass

    with pytest.raises(UserError, match=r"DCGANDiscriminator has no batch norm: leave it out of .*networks$"):
        plain = DCGANDiscriminator((1, 32, 32), base_channels=2, norm="none")
        ReferenceDiscriminator(plain, torch.zeros(3, 1, 32, 32), None)
    for norm in (ConditionalBatchNorm2d(), nn.SyncBatchNorm(2)):
        with pytest.raises(UserError, match=rf"{type(norm).__name__} in Sequential cannot be virtual"):
            ReferenceGenerator(nn.Sequential(nn.Conv2d(1, 2, 3), norm), torch.zeros(3, 4), None)


def test_fully_connected_layers_and_low_precision() -> None:
    torch.manual_seed(0)
    network = ReferenceDiscriminator(
        InfoGANDiscriminator((1, 32, 32), base_channels=2, hidden=6), torch.rand(3, 1, 32, 32), None
    )
    images = torch.rand(4, 1, 32, 32)
    exact = network(images).logits
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(images).logits.float(), exact, rtol=0.1, atol=0.01)
