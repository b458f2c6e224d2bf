from __future__ import annotations

import torch

from lightning_gen.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from lightning_gen.networks.labels import concatenate_labels
from tests.networks.checks import count, without_gradient


def test_one_hot_labels_are_appended_to_vectors_and_as_maps_to_images() -> None:
    labels = torch.tensor([2, 0])
    vectors = concatenate_labels(torch.full((2, 1), 5.0), labels, 3)
    assert vectors.tolist() == [[5, 0, 0, 1], [5, 1, 0, 0]]
    images = concatenate_labels(torch.full((2, 1, 2, 2), 5.0), labels, 3)
    assert torch.equal(images, vectors[:, :, None, None].expand(2, 4, 2, 2))
    assert concatenate_labels(vectors, None, None) is vectors


def test_classes_widen_the_first_layers_alone() -> None:
    for network, extra in ((DCGANGenerator, 10 * 16 * 16), (DCGANDiscriminator, 10 * 4 * 16)):
        options = {"latent_dim": 6} if network is DCGANGenerator else {}
        plain = network((1, 32, 32), base_channels=4, **options)
        conditional = network((1, 32, 32), base_channels=4, num_classes=10, **options)
        # a 4x4 kernel for each of the 10 labels and each of the first layer's 16 (generator) or 4 channels
        assert count(conditional) - count(plain) == extra
        assert plain.state_dict().keys() == conditional.state_dict().keys()


def test_labels_change_what_both_networks_say_and_gradients_reach_all() -> None:
    torch.manual_seed(0)
    generator = DCGANGenerator((1, 32, 32), latent_dim=6, base_channels=4, num_classes=3)
    discriminator = DCGANDiscriminator((1, 32, 32), base_channels=4, norm="none", num_classes=3)
    labels = torch.tensor([0, 1, 2])
    images = generator(torch.randn(1, 6).expand(3, -1), labels)
    assert images.shape == (3, 1, 32, 32)
    assert len(images.flatten(1).unique(dim=0)) == 3
    logits = discriminator(images[:1].expand(3, -1, -1, -1), labels).logits
    assert len(logits.unique()) == 3
    assert without_gradient(generator, images) == []
    assert without_gradient(discriminator, discriminator(images.detach(), labels).logits) == []
