import torch
from torch import Tensor, nn

from lightning_gen.networks.conditional_norm import ConditionalBatchNorm2d, ProjectedBatchNorm2d


def normalized(maps: Tensor) -> Tensor:
    mean = maps.mean((0, 2, 3), keepdim=True)
    variance = (maps - mean).square().mean((0, 2, 3), keepdim=True)
    return (maps - mean) / (variance + 1e-5).sqrt()


def test_each_class_has_its_gain_and_its_bias() -> None:
    torch.manual_seed(0)
    norm = ConditionalBatchNorm2d(2, num_classes=3).double()
    norm.gains.data = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).double()
    norm.biases.data = torch.tensor([[-1.0, 0.0], [7.0, 8.0], [0.5, -0.5]]).double()
    maps = 3 * torch.randn(4, 2, 3, 3).double() + 1
    output = norm(maps, torch.tensor([2, 0, 1, 2]))
    unit = normalized(maps)
    for sample, gains, biases in ((0, (5, 6), (0.5, -0.5)), (1, (1, 2), (-1, 0)), (2, (3, 4), (7, 8))):
        for channel in range(2):
            expected = gains[channel] * unit[sample, channel] + biases[channel]
            torch.testing.assert_close(output[sample, channel], expected, rtol=0, atol=1e-12)


def test_classes_are_alike_at_first() -> None:
    maps = torch.randn(4, 5, 3, 3)
    torch.testing.assert_close(ConditionalBatchNorm2d(5, 3)(maps, torch.tensor([0, 1, 2, 0])), nn.BatchNorm2d(5)(maps))


def test_evaluation_takes_the_running_statistics() -> None:
    norm = ConditionalBatchNorm2d(2, num_classes=2).eval()
    norm.norm.running_mean = torch.tensor([1.0, 2.0])
    norm.norm.running_var = torch.tensor([4.0, 9.0]) - 1e-5
    norm.gains.data = torch.tensor([[1.0, 1.0], [10.0, 20.0]])
    maps = torch.tensor([5.0, 8.0]).reshape(1, 2, 1, 1)
    torch.testing.assert_close(norm(maps, torch.tensor([1])).flatten(), torch.tensor([20.0, 40.0]))


def test_gains_and_biases_are_linear_in_a_vector() -> None:
    torch.manual_seed(0)
    norm = ProjectedBatchNorm2d(2, condition_dim=3).double()
    norm.gain.weight.data = torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, 0.0]]).double()
    norm.bias.weight.data = torch.tensor([[0.0, 1.0, 0.0], [3.0, 0.0, 0.0]]).double()
    maps = torch.randn(2, 2, 3, 3).double()
    output = norm(maps, torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.5, 0.0]]).double())
    unit = normalized(maps)
    # gains 1 + (1 + 6, -2) and 1 + (0, -0.5); biases (2, 3) and (0.5, 0)
    expected = torch.stack(
        [
            torch.stack([8 * unit[0, 0] + 2, -unit[0, 1] + 3]),
            torch.stack([unit[1, 0] + 0.5, 0.5 * unit[1, 1]]),
        ]
    )
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
