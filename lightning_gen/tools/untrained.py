"""What a trained model is compared with: the same model before training."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import HasFeatureMaps, HasFeatures
from lightning_gen.seeds import derive_seed

BLOCK_SIZE = 64


def untrained(model: GenerativeModel, images: Tensor, seed: int) -> GenerativeModel:
    """A new model of the same class and settings, on the same device, in evaluation mode.

    Its batch norms get the statistics of real images, as those of a trained network have: with those they start with
    its later layers would be almost silent.

    Args:
        model: with features or feature maps.
        images: (N, C, H, W) float in [-1, 1].
        seed: of its weights.

    Raises:
        UserError: the model does not keep its settings.
    """
    settings = copy.deepcopy(dict(model.hparams))
    if not settings:
        raise UserError(f"{type(model).__name__} keeps no settings (save_hyperparameters), so no new one can be made")
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed("untrained", seed))
        new = type(model)(**settings).to(model.device).eval()
    norms = [module for module in new.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        for norm in norms:
            # No momentum: the mean over all blocks.
            norm.train().momentum = None
            norm.reset_running_stats()
        for block in images.split(BLOCK_SIZE) if norms else ():
            if isinstance(new, HasFeatureMaps):
                new.feature_maps(block.to(new.device))
            elif isinstance(new, HasFeatures):
                new.features(block.to(new.device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return new.eval()
