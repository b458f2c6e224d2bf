import math

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.dit import DiT, grid_positions
from tests.networks.checks import count, without_gradient

BLOCK = {
    "norm1.linear": "modulation.layer",
    "attn1.to_out.0": "attended",
    "ff.net.0.proj": "layers.0",
    "ff.net.2": "layers.2",
}


def weights_of(model: DiTTransformer2DModel, layers: int) -> dict[str, Tensor]:
    """The weights of the network in `diffusers` under our names; its blocks share their embeddings."""
    theirs = model.state_dict()
    ours: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        ours[f"patches.{kind}"] = theirs[f"pos_embed.proj.{kind}"]
        ours[f"modulation.layer.{kind}"] = theirs[f"proj_out_1.{kind}"]
        ours[f"last.{kind}"] = theirs[f"proj_out_2.{kind}"]
        embedding = "transformer_blocks.0.norm1.emb"
        first = theirs[f"{embedding}.timestep_embedder.linear_1.{kind}"]
        # There cosines come before sines.
        ours[f"noise_level.layers.0.{kind}"] = first.roll(128, 1) if kind == "weight" else first
        ours[f"noise_level.layers.2.{kind}"] = theirs[f"{embedding}.timestep_embedder.linear_2.{kind}"]
        for layer in range(layers):
            block = f"transformer_blocks.{layer}"
            for their_name, our_name in BLOCK.items():
                ours[f"blocks.{layer}.{our_name}.{kind}"] = theirs[f"{block}.{their_name}.{kind}"]
            parts = [theirs[f"{block}.attn1.to_{part}.{kind}"] for part in "qkv"]
            ours[f"blocks.{layer}.attention.{kind}"] = torch.cat(parts)
    ours["condition.table.weight"] = theirs[f"{embedding}.class_embedder.embedding_table.weight"]
    return ours


def randomize(network: nn.Module) -> None:
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)


def test_it_gives_what_the_network_of_diffusers_gives_with_the_same_weights() -> None:
    torch.manual_seed(0)
    theirs = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=3,
        out_channels=3,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
        norm_eps=1e-6,
    ).eval()
    randomize(theirs)
    for block in theirs.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(theirs.transformer_blocks[0].norm1.emb.state_dict())
    network = DiT((3, 8, 8), num_classes=10, dim=32, layers=2, heads=2).eval()
    network.load_state_dict(weights_of(theirs, 2))
    images, levels, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 5, 400, 999]), torch.tensor([0, 3, 9, 10])
    with torch.no_grad():
        expected = theirs(images, levels, labels).sample
        torch.testing.assert_close(network(images, levels.float(), labels), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.3


def test_dit_s_of_the_paper_has_its_number_of_parameters() -> None:
    # By hand, of DiT-S/2 on 4x32x32: 384 wide, 12 blocks, 1000 classes and one for none. "33M" (table 1) counts the
    # positions, 256 tokens, and as many outputs again for variances.
    dim, block = 384, 384 * 6 * 384 + 6 * 384 + 4 * (384 * 384 + 384) + 2 * 4 * 384 * 384 + 5 * 384
    embeddings = 256 * dim + dim + dim * dim + dim + 1001 * dim + 16 * dim + dim
    last = 2 * dim * dim + 2 * dim + 16 * dim + 16
    expected = 12 * block + embeddings + last
    assert count(DiT((4, 32, 32), num_classes=1000)) == expected
    assert round((expected + 256 * dim + 16 * dim + 16) / 1e6) == 33


def test_positions_are_sines_and_cosines_of_column_and_row() -> None:
    positions = grid_positions(2, 3, 8)
    row, column = 1, 2
    expected = [math.sin(column), math.sin(column / 100), math.cos(column), math.cos(column / 100)]
    expected += [math.sin(row), math.sin(row / 100), math.cos(row), math.cos(row / 100)]
    assert positions.shape == (6, 8)
    assert positions[5].tolist() == pytest.approx(expected, abs=1e-6)


def test_it_begins_at_zero_and_every_weight_can_learn() -> None:
    torch.manual_seed(0)
    network = DiT((1, 8, 12), num_classes=3, patch_size=4, dim=16, layers=2, heads=2)
    arguments = torch.randn(4, 1, 8, 12), torch.rand(4) * 1000, torch.tensor([0, 1, 2, 3])
    assert not network(*arguments).any()
    randomize(network)
    assert without_gradient(network, network(*arguments)) == []


def test_blocks_begin_as_the_identity() -> None:
    network = DiT((1, 8, 8), dim=16, layers=1, heads=2)
    tokens = torch.randn(2, 16, 16)
    assert torch.equal(network.blocks[0](tokens, torch.randn(2, 16)), tokens)


def test_patches_go_back_to_where_they_came_from() -> None:
    network = DiT((2, 6, 4), patch_size=2, dim=8, layers=0, heads=2)
    # Token k is 1 at k and 0 elsewhere; the last layer turns its layer norm into k - 3.5.
    with torch.no_grad():
        network.positions.copy_(torch.eye(8)[:6])
        nn.init.zeros_(network.patches.weight)
        network.last.weight.copy_(torch.arange(8.0).expand(8, -1) * math.sqrt(7 / 64))
        network.last.bias.copy_(10 * torch.arange(8.0) + 3.5)
        found = network(torch.zeros(1, 2, 6, 4), torch.zeros(1))[0]
    tens, units = [[0, 2, 0, 2], [4, 6, 4, 6]] * 3, [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2 + [[4, 4, 5, 5]] * 2
    expected = 10 * torch.tensor(tens) + torch.tensor(units)
    torch.testing.assert_close(found, torch.stack([expected, expected + 10]).float(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 3}, "model.network.patch_size=3 must divide the images' 8x8"),
        ({"dim": 20, "heads": 3}, "model.network.dim=20 must be a multiple of 4 and of model.network.heads=3"),
    ],
)
def test_mistakes_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DiT((1, 8, 8), **options)  # type: ignore[arg-type]
