import torch

from lightning_gen.networks.attention import SelfAttention2d


def test_it_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    attention = SelfAttention2d(8).double()
    attention.gamma.data.fill_(0.7)
    maps = torch.randn(2, 8, 4, 6).double()
    query, key, value, output = (
        getattr(attention, name).weight[:, :, 0, 0] for name in ("query", "key", "value", "output")
    )
    assert [tuple(matrix.shape) for matrix in (query, key, value, output)] == [(1, 8), (1, 8), (4, 8), (8, 4)]
    expected = torch.empty_like(maps)
    for sample in range(2):
        keys, values = [], []
        for top in (0, 2):
            for left in (0, 2, 4):
                window = maps[sample, :, top : top + 2, left : left + 2].reshape(8, 4)
                keys.append((key @ window).amax(1))
                values.append((value @ window).amax(1))
        for row in range(4):
            for column in range(6):
                here = maps[sample, :, row, column]
                scores = torch.stack([(query @ here) @ other for other in keys]).exp()
                attended = sum(score * other for score, other in zip(scores / scores.sum(), values, strict=True))
                expected[sample, :, row, column] = here + 0.7 * (output @ attended)
    torch.testing.assert_close(attention(maps), expected, rtol=0, atol=1e-12)


def test_it_begins_as_the_identity_and_still_learns() -> None:
    attention = SelfAttention2d(16)
    maps = torch.randn(2, 16, 8, 8)
    output = attention(maps)
    assert torch.equal(output, maps)
    output.square().sum().backward()
    assert attention.gamma.grad is not None
    assert attention.gamma.grad.abs() > 0


def test_it_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)
    attention = SelfAttention2d(8).double()
    attention.gamma.data.fill_(1.0)
    maps = torch.randn(1, 8, 2, 2).double().requires_grad_()
    assert torch.autograd.gradgradcheck(attention, maps)


def test_narrow_maps_keep_one_channel_for_queries() -> None:
    assert SelfAttention2d(4)(torch.randn(1, 4, 2, 2)).shape == (1, 4, 2, 2)
