import pytest
import torch
from torch import nn

from lightning_gen.models.gan import GAN
from lightning_gen.tools.untrained import untrained

OPTIMIZER = {"name": "Adam", "lr": 1e-3}


@pytest.fixture
def model() -> GAN:
    networks = {
        name: {"_target_": f"lightning_gen.networks.dcgan.DCGAN{name.title()}", "base_channels": 2}
        for name in ("generator", "discriminator")
    }
    return GAN((1, 32, 32), **networks, generator_optimizer=OPTIMIZER, discriminator_optimizer=OPTIMIZER, latent_dim=4)


def weights(model: GAN) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.discriminator.parameters()])


def test_new_weights_come_from_the_seed_alone_and_the_global_stream_is_left_alone(model: GAN) -> None:
    images = torch.randn(10, 1, 32, 32)
    before, state = weights(model), torch.get_rng_state()
    first, again, other = untrained(model, images, 0), untrained(model, images, 0), untrained(model, images, 1)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))
    assert not torch.equal(weights(first), before)
    assert torch.equal(weights(model), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not first.training


def test_batch_norms_hold_the_statistics_of_the_images(model: GAN) -> None:
    images = torch.randn(128, 1, 32, 32)
    new = untrained(model, images, 0)
    convolution, norm, _ = new.discriminator.blocks[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.momentum == 0.1
    with torch.no_grad():
        maps = convolution(new.discriminator.blocks[0](images))
    assert torch.allclose(norm.running_mean, maps.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(norm.running_var, maps.var((0, 2, 3)), rtol=0.05)
