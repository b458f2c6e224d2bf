"""LPIPS as features: their squared distance is the perceptual distance of two images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_gen.errors import UserError, first_line
from lightning_gen.images import as_float
from lightning_gen.metrics.extractors.base import FeatureExtractor, Features, extractors, sha256_of_file
from lightning_gen.metrics.extractors.published import published_weights, weights_folder

BACKBONE_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
LINEAR_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-vgg16-lpips.pth"
LINEAR_FILE, BACKBONE_FILE = "weights-vgg16-lpips.pth", "vgg16-397923af.pth"
"""Their names in `weights_folder`."""
CHANNELS = (64, 128, 256, 512, 512)
ENDS = (4, 9, 16, 23, 30)
"""Behind which of VGG-16's layers the five maps are taken: the last ReLU before each pooling."""
MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of the paper's input, for images in [-1, 1]."""
EPSILON = 1e-10


@extractors.register("lpips")
class LPIPSExtractor(FeatureExtractor):
    """VGG-16's maps, of unit length over channels, weighted so that ``|f(x) - f(y)|^2`` is LPIPS.

    Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", eq. 1, version 0.1 of
    their weights. The distance is a mean over positions of squared differences weighted by channel, so the features are
    the maps times the roots of the weights over the number of positions. They are many: for ``diversity`` and
    ``path_length`` alone.

    Args:
        size: height and width that images are resized to, as torch-fidelity does it: by area if they are larger.
        weights: the file of the paper's linear weights; None for torch-fidelity's in `weights_folder`, downloaded.
        backbone: torchvision's file of VGG-16; None for the one in `weights_folder`, downloaded.

    Raises:
        UserError: weights that are missing and cannot be downloaded, or damaged.
    """

    name = "lpips"
    takes_floats = True
    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int = 64, weights: str | Path | None = None, backbone: str | Path | None = None) -> None:
        super().__init__()
        from torchvision.models import vgg16

        if size < 32:
            raise UserError(f"metrics.extractor.size must be at least 32, not {size}")
        linear_file = published_weights(LINEAR_URL, "", LINEAR_FILE, "LPIPS", weights)
        backbone_file = published_weights(BACKBONE_URL, "397923af", BACKBONE_FILE, "VGG-16", backbone)
        self.size = size
        self.layers = vgg16(init_weights=False).features[: ENDS[-1]]
        state = _load(backbone_file)
        linear = _load(linear_file)
        try:
            self.layers.load_state_dict(
                {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
            )
            roots = [linear[f"lin{index}.model.1.weight"].clamp_min(0).sqrt() for index in range(len(CHANNELS))]
        except (RuntimeError, KeyError) as error:
            raise UserError(
                f"LPIPS weights: {backbone_file} and {linear_file} do not hold VGG-16 and the paper's weights "
                f"({first_line(error)}): set metrics.extractor.backbone and metrics.extractor.weights"
            ) from error
        self.roots = nn.ParameterList(roots)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1))
        self.num_features = sum(number * (size >> index) ** 2 for index, number in enumerate(CHANNELS))
        self.digests = {"weights_sha256": sha256_of_file(linear_file), "backbone_sha256": sha256_of_file(backbone_file)}
        self.ranked = weights is None and backbone is None

    def forward(self, images: Tensor) -> Features:
        """Features (N, D), float32, of RGB or grey images (N, C, H, W), uint8 or float in [-1, 1]; no logits."""
        with torch.autocast(images.device.type, enabled=False):
            maps = (as_float(images).expand(-1, 3, -1, -1) - self.mean) / self.deviation
            maps = self._resize(maps)
            parts = []
            for index, (start, end) in enumerate(zip((0, *ENDS), ENDS, strict=False)):
                maps = self.layers[start:end](maps)
                length = maps.square().sum(1, keepdim=True).sqrt() + EPSILON
                weighted = maps / length * (self.roots[index] / maps[0, 0].numel() ** 0.5)
                parts.append(weighted.flatten(1))
        return Features(torch.cat(parts, 1), None)

    def protocol(self) -> dict[str, Any]:
        """Name, weights, layers and resize."""
        return {"name": self.name, **self.digests, "layer": "vgg16_relu_x5", "resize": f"area_{self.size}"}

    def check_image_shape(self, image_shape: tuple[int, int, int]) -> None:
        """RGB or grey images of any size."""
        if image_shape[0] not in (1, 3):
            raise UserError(f"Extractor 'lpips' takes RGB or grey images, not {image_shape[0]} channels")

    def _resize(self, images: Tensor) -> Tensor:
        if images.shape[-2:] == (self.size, self.size):
            return images
        if min(images.shape[-2:]) > self.size:
            return functional.interpolate(images, (self.size, self.size), mode="area")
        return functional.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)


def lpips_at_hand() -> bool:
    """Whether the published weights are in `weights_folder`, so that nothing has to be downloaded."""
    return all((weights_folder() / name).is_file() for name in (LINEAR_FILE, BACKBONE_FILE))


def _load(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return dict(state)
    # Whatever a file that is no state dict makes of the unpickler.
    except Exception as error:
        raise UserError(f"LPIPS weights: {path} is no PyTorch file of tensors") from error
