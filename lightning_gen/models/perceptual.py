"""LPIPS as a term of a loss."""

from __future__ import annotations

from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.metrics.extractors import FeatureExtractor, create_extractor


class PerceptualDistance:
    """LPIPS of pairs of images (Zhang et al. 2018), differentiable, by `lightning_gen.metrics.extractors.lpips`.

    No module, so that its published weights are no part of a model or of its checkpoints.

    Args:
        size: height and width that images are resized to.

    Raises:
        UserError: the weights are missing.
    """

    def __init__(self, size: int = 64) -> None:
        try:
            self.extractor: FeatureExtractor = create_extractor("lpips", size=size)
        except UserError as error:
            raise UserError(f"model.perceptual_weight needs LPIPS: set it to 0, or get the weights: {error}") from error

    def __call__(self, images: Tensor, others: Tensor) -> Tensor:
        """Distances (N,) of images (N, C, H, W) from others, both in [-1, 1], grey or RGB."""
        self.extractor.to(images.device)
        return (self.extractor(images).features - self.extractor(others).features).square().sum(1)
