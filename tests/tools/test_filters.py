import pytest
import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.tools.filters import crop_to_response, filters, guided, guided_gradient


class Tiny(nn.Module):
    """Two layers on the 4 pixels of a 1x2x2 image, as two blocks of feature maps (N, D)."""

    def __init__(self, first: Tensor, second: Tensor, unit: nn.Module) -> None:
        super().__init__()
        layers = [nn.Linear(4, len(first), bias=False), nn.Linear(len(first), len(second), bias=False)]
        for layer, weight in zip(layers, (first, second), strict=True):
            layer.weight = nn.Parameter(weight)
        self.blocks = nn.Sequential(nn.Flatten(), layers[0], unit, layers[1])

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        hidden = self.blocks[:3](images)
        return [hidden, self.blocks[3](hidden)]


FIRST = torch.tensor([[1.0, 2, 0, 0], [-1, 0, 0, 3], [0, 1, -1, 0], [2, 2, 2, 2]])
SECOND = torch.tensor([[1.0, 1, -2, 0.5]])
IMAGE = torch.tensor([1.0, 1, 0, -1]).reshape(1, 1, 2, 2)
# Hidden before the unit: 3, -4, 1, 2. Gradient of the output at the hidden units: 1, 1, -2, 0.5.


def test_guided_gradient_of_a_relu_network_by_hand() -> None:
    # The second unit is off, the third has a negative gradient: only the first and the fourth pass theirs.
    expected = 1 * FIRST[0] + 0.5 * FIRST[3]
    found = guided_gradient(Tiny(FIRST, SECOND, nn.ReLU()), IMAGE, -1, 0)
    assert torch.allclose(found.flatten(), expected)


def test_a_leaky_unit_keeps_its_slope() -> None:
    expected = 1 * FIRST[0] + 0.2 * FIRST[1] + 0.5 * FIRST[3]
    found = guided_gradient(Tiny(FIRST, SECOND, nn.LeakyReLU(0.2)), IMAGE, -1, 0)
    assert torch.allclose(found.flatten(), expected)


@pytest.mark.parametrize("unit", [nn.ReLU, nn.LeakyReLU])
def test_units_that_work_in_place_give_the_same(unit: type[nn.ReLU] | type[nn.LeakyReLU]) -> None:
    models = [Tiny(FIRST, SECOND, unit(inplace=inplace)) for inplace in (False, True)]
    for block, channel in ((0, 0), (1, 0)):
        plain, in_place = (guided_gradient(model, IMAGE, block, channel) for model in models)
        assert torch.equal(plain, in_place)
    assert models[1].blocks[2].inplace


def test_a_map_that_the_next_block_overwrites_is_looked_at_as_it_was() -> None:
    class OverwritesItsInput(Tiny):
        """The unit belongs to the second block."""

        def feature_maps(self, images: Tensor) -> list[Tensor]:
            hidden = self.blocks[:2](images)
            return [hidden, self.blocks[2:](hidden)]

    # The second hidden number is -4: after the unit it would be 0 without a gradient.
    found = guided_gradient(OverwritesItsInput(FIRST, SECOND, nn.ReLU(inplace=True)), IMAGE, 0, 1)
    assert torch.equal(found.flatten(), FIRST[1])


def test_afterwards_gradients_are_the_networks_own_again() -> None:
    model = Tiny(FIRST, SECOND, nn.ReLU())
    guided_gradient(model, IMAGE, -1, 0)
    pixels = IMAGE.clone().requires_grad_()
    model.feature_maps(pixels)[-1].sum().backward()
    assert torch.allclose(pixels.grad.flatten(), FIRST[0] - 2 * FIRST[2] + 0.5 * FIRST[3])


def test_parameters_receive_no_gradient_and_an_error_removes_the_hooks() -> None:
    model = Tiny(FIRST, SECOND, nn.ReLU())
    guided_gradient(model, IMAGE, -1, 0)
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(RuntimeError, match="stop"), guided(model):
        raise RuntimeError("stop")
    assert not model.blocks[2]._forward_hooks


def test_a_network_without_units_is_refused() -> None:
    with pytest.raises(UserError, match="no ReLU"), guided(nn.Linear(1, 1)):
        pass


class OneFilter(nn.Module):
    """A 3x3 convolution of a 1x8x8 image that sums a window, and one that answers to its negative."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        weight = torch.stack([torch.ones(1, 3, 3), -torch.ones(1, 3, 3)])
        self.convolution.weight = nn.Parameter(weight)
        self.unit = nn.ReLU(inplace=True)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        return [self.unit(self.convolution(images))]


def bright_spots() -> Tensor:
    """Black images with one bright window each, brighter from image to image, at different places."""
    images = -torch.ones(4, 1, 8, 8)
    for index, (top, left) in enumerate([(1, 1), (4, 2), (2, 4), (4, 4)]):
        images[index, 0, top : top + 3, left : left + 3] = 0.25 * index
    return images


def test_the_strongest_responses_come_first_cut_to_what_the_channel_sees() -> None:
    found = filters(OneFilter(), bright_spots(), 0, [0], top=3)
    assert found.patches.shape == found.gradients.shape == (1, 3, 1, 3, 3)
    # 0.75, 0.5 and 0.25 as uint8, and a gradient that is the filter itself: ones, scaled to the largest level.
    assert found.patches.flatten(2)[0].unique(dim=1).flatten().tolist() == [223, 191, 159]
    assert found.gradients.unique().tolist() == [255]


def test_each_channel_has_its_own_images() -> None:
    images = bright_spots()
    images[2] = -images[2]
    found = filters(OneFilter(), images, -1, [0, 1], top=1)
    assert found.patches[0].unique().tolist() == [255]
    assert found.patches[1].unique().tolist() == [0]
    assert found.gradients[1].unique().tolist() == [0]


def test_windows_at_the_border_stay_inside() -> None:
    images = torch.arange(2 * 25.0).reshape(2, 1, 5, 5)
    gradients = torch.zeros(2, 1, 5, 5)
    gradients[0, 0, 1:4, 1:4] = 1
    gradients[1, 0, 0, 4] = 1
    patches, windows = crop_to_response(images, gradients)
    assert torch.equal(patches[0], images[0, :, 1:4, 1:4])
    assert torch.equal(patches[1], images[1, :, 0:3, 2:5])
    assert torch.equal(windows[1, 0], torch.tensor([[0.0, 0, 1], [0, 0, 0], [0, 0, 0]]))


def test_blocks_and_channels_that_are_not_there_are_named() -> None:
    with pytest.raises(UserError, match="--block goes from -1 to 0"):
        filters(OneFilter(), bright_spots(), 1, [0], top=1)
    with pytest.raises(UserError, match="has 2 channels"):
        filters(OneFilter(), bright_spots(), 0, [0, 1, 2], top=1)
