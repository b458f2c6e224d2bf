"""The residual generator of CycleGAN (Zhu et al. 2017), after Johnson et al. 2016."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.dcgan import initialize_dcgan
from lightning_gen.networks.translator import Translator


class TranslatorBlock(nn.Module):
    """Two 3x3 convolutions with reflection padding and instance norm, ReLU between them, plus the input.

    Args:
        channels: C of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) of maps (N, C, H, W)."""
        return maps + self.layers(maps)


class ResidualTranslator(Translator):
    """7x7, two halvings, residual blocks, two doublings, 7x7, tanh (Zhu et al. 2017, appendix 7.2).

    Instance norm, without parameters or running statistics, and ReLU after every convolution but the last; reflection
    padding where the size stays. The convolutions before the norms have biases, without effect, as the published
    networks do.

    Args:
        input_shape: (C, H, W) of the images that are translated; H and W multiples of 4, at least 8.
        image_shape: (C', H, W) of the translations.
        base_channels: width of the first layer.
        num_blocks: residual blocks; None for the paper's 6 for images below 256 pixels and 9 from there.

    Raises:
        UserError: another size, or no such number of blocks.
    """

    # A quarter of the size must be 2 at least, for the blocks' reflections.
    size_multiple = 8

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        image_shape: tuple[int, int, int],
        base_channels: int = 64,
        num_blocks: int | None = None,
    ) -> None:
        super().__init__()
        size = image_shape[1]
        if size < 8 or size % 4:
            raise UserError(
                f"CycleGAN's generator takes images of a multiple of 4 pixels, at least 8, not {size}: set "
                "data.image_size"
            )
        if num_blocks is None:
            num_blocks = 6 if size < 256 else 9
        if num_blocks < 0:
            raise UserError(f"model.generator.num_blocks must be at least 0, not {num_blocks}")
        once, twice, fourfold = base_channels, 2 * base_channels, 4 * base_channels
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(input_shape[0], once, 7), *_norm(once)]
        layers += [nn.Conv2d(once, twice, 3, stride=2, padding=1), *_norm(twice)]
        layers += [nn.Conv2d(twice, fourfold, 3, stride=2, padding=1), *_norm(fourfold)]
        layers += [TranslatorBlock(fourfold) for _ in range(num_blocks)]
        for wide, narrow in ((fourfold, twice), (twice, once)):
            upward = nn.ConvTranspose2d(wide, narrow, 3, stride=2, padding=1, output_padding=1)
            layers += [upward, *_norm(narrow)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(once, image_shape[0], 7), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        initialize_dcgan(self)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (N, C', H, W) in [-1, 1] of images (N, C, H, W) in [-1, 1]; ``noise`` is not used."""
        del noise
        return self.layers(images)


def _norm(channels: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(channels), nn.ReLU(inplace=True)]
