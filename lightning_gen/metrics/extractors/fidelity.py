"""DINOv2 and CLIP as torch-fidelity runs them, on the weights that their authors publish.

DINOv2: Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision"; as features of Frechet
distances, Stein et al. 2023, "Exposing flaws of generative model evaluation metrics and their unfair treatment of
diffusion models". CLIP: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision";
Kynkäänniemi et al. 2023, "The Role of ImageNet Classes in Frechet Inception Distance". torch-fidelity resizes by
TensorFlow 1's bilinear filter, as for Inception, where these papers resize by bicubic or Lanczos filters.
"""

from __future__ import annotations

import os
import warnings
from contextlib import redirect_stdout
from http.client import HTTPException
from pathlib import Path
from sys import stderr
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError, first_line
from lightning_gen.metrics.extractors.base import FeatureExtractor, Features, extractors, sha256_of_file
from lightning_gen.metrics.extractors.published import published_weights

DINOV2_CODE = "facebookresearch/dinov2:b8931f7bf91576930313be2c6d6af376033b35f0"
DINOV2_SHA256 = {
    "vit-s-14": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    "vit-b-14": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "vit-l-14": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "vit-g-14": "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
}


class FidelityExtractor(FeatureExtractor):
    """A network of torch-fidelity's on RGB images of any size; grey ones are repeated to three equal channels.

    Attributes:
        variant: of the network.
        network: torch-fidelity's extractor, uint8 (N, 3, H, W) to a tuple of one tensor (N, D) float32.
        resolution: height and width of what the network sees.
        weights_sha256: of the weight file.
    """

    variant: str
    network: nn.Module
    resolution: int
    weights_sha256: str

    def forward(self, images: Tensor) -> Features:
        """Features (N, D), float32, of uint8 images (N, 3 or 1, H, W); no logits."""
        with torch.autocast(images.device.type, enabled=False):
            (features,) = self.network(images.expand(-1, 3, -1, -1))
        return Features(features, None)

    def protocol(self) -> dict[str, Any]:
        """Name, variant, weights, layer and resize."""
        return {
            "name": self.name,
            "variant": self.variant,
            "weights_sha256": self.weights_sha256,
            "layer": f"embedding_{self.num_features}",
            "resize": f"tf1_bilinear_{self.resolution}",
        }

    def check_image_shape(self, image_shape: tuple[int, int, int]) -> None:
        """RGB or grey images of any size."""
        if image_shape[0] not in (1, 3):
            raise UserError(
                f"Extractor {self.name!r} takes RGB or grey images, not {image_shape[0]} channels: choose data of 1 or "
                "3 channels or use metrics=none"
            )


@extractors.register("dinov2")
class DINOv2Extractor(FidelityExtractor):
    """The class token of a DINOv2 vision transformer, from images resized to 224x224.

    The network's code comes from the authors' repository by torch's hub, at one commit, and is kept in the hub's cache.

    Args:
        variant: ``vit-s-14``, ``vit-b-14``, ``vit-l-14`` or ``vit-g-14``.
        weights: the authors' file ``dinov2_vitX14_pretrain.pth``; None for the one in `weights_folder`, where it is
            downloaded to if it is missing.

    Raises:
        UserError: an unknown variant, or code or weights that are missing and cannot be downloaded, or damaged.
    """

    name = "dinov2"

    def __init__(self, variant: str = "vit-b-14", weights: str | None = None) -> None:
        super().__init__()
        _check_variant(self.name, variant, list(DINOV2_SHA256))
        model_name = "dinov2_" + variant.replace("-", "")
        file = f"{model_name}_pretrain.pth"
        url = f"https://dl.fbaipublicfiles.com/dinov2/{model_name}/{file}"
        path = published_weights(url, DINOV2_SHA256[variant], file, "DINOv2", weights)
        model = _dinov2_model(model_name)
        try:
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        # Whatever a file that is no state dict makes of the unpickler.
        except Exception as error:
            raise UserError(
                f"DINOv2 weights: {path} does not hold {variant} ({first_line(error)}): set metrics.extractor.weights "
                f"to the file {file}"
            ) from error
        self.network = _torch_fidelity_dinov2(variant, model)
        self.variant = variant
        self.num_features = int(model.embed_dim)  # type: ignore[arg-type]
        self.resolution = 224
        self.weights_sha256 = sha256_of_file(path)
        self.ranked = self.weights_sha256 == DINOV2_SHA256[variant]


@extractors.register("clip")
class CLIPExtractor(FidelityExtractor):
    """The image embedding of CLIP, from images resized to the network's resolution (224x224 but for the largest).

    Args:
        variant: ``vit-b-32``, ``vit-b-16``, ``vit-l-14``, ``vit-l-14-336px``, ``rn50``, ``rn101``, ``rn50x4``,
            ``rn50x16`` or ``rn50x64``.
        weights: OpenAI's TorchScript file of it; None for torch-fidelity's file in `weights_folder`, where it is
            downloaded to if it is missing.

    Raises:
        UserError: an unknown variant, or weights that are missing and cannot be downloaded, or damaged.
    """

    name = "clip"

    def __init__(self, variant: str = "vit-b-32", weights: str | None = None) -> None:
        super().__init__()
        from torch_fidelity import feature_extractor_clip as fidelity

        _check_variant(self.name, variant, [name.removeprefix("clip-") for name in fidelity.MODEL_METADATA])
        full = f"clip-{variant}"
        sha256 = fidelity.MODEL_METADATA[full]["hash"]
        file = f"{full}-{sha256}.pt"
        path = published_weights(fidelity.MODEL_URLS[full], sha256, file, "CLIP", weights)
        try:
            with warnings.catch_warnings():
                # The published files are TorchScript, which torch wants to see gone.
                warnings.simplefilter("ignore", FutureWarning)
                network: Any = fidelity.FeatureExtractorCLIP(full, ["clip"], feature_extractor_weights_path=str(path))
        # Whatever a file that is no TorchScript archive of CLIP makes of the loader.
        except Exception as error:
            raise UserError(
                f"CLIP weights: {path} is no TorchScript file of CLIP ({first_line(error)}): set "
                f"metrics.extractor.weights to OpenAI's file of {variant}"
            ) from error
        self.network = network
        self.variant = variant
        self.num_features = network.model.visual.output_dim
        self.resolution = network.resolution
        self.weights_sha256 = sha256_of_file(path)
        self.ranked = self.weights_sha256 == sha256


def _check_variant(name: str, variant: str, known: list[str]) -> None:
    if variant not in known:
        raise UserError(
            f"{name} has no variant {variant!r}: set metrics.extractor.variant to one of {', '.join(known)}"
        )


def _dinov2_model(name: str) -> nn.Module:
    """The network without weights, by torch's hub from its cache, or downloaded to it."""
    # Its attention has two forms; the one of torch itself needs no other package and gives the same on every machine.
    os.environ["XFORMERS_DISABLED"] = "1"
    try:
        # The hub prints where it looks.
        with redirect_stdout(stderr), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="xFormers is")
            return torch.hub.load(DINOV2_CODE, name, pretrained=False, skip_validation=True, verbose=False)
    except (OSError, RuntimeError, ImportError, AttributeError, HTTPException) as error:
        repository, commit = DINOV2_CODE.split(":")
        folder = Path(torch.hub.get_dir(), f"{repository.replace('/', '_')}_{commit}")
        raise UserError(
            f"The code of DINOv2 is not at {folder} and cannot be downloaded, or does not run ({first_line(error)}): "
            f"put https://github.com/{repository} at commit {commit} there"
        ) from error


def _torch_fidelity_dinov2(variant: str, model: nn.Module) -> nn.Module:
    """torch-fidelity's extractor around a model that is loaded; its constructor takes no weights."""
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

    network = FeatureExtractorDinoV2.__new__(FeatureExtractorDinoV2)
    FeatureExtractorBase.__init__(network, f"dinov2-{variant}", ["dinov2"])
    network.feature_extractor_internal_dtype = torch.float32
    network.model = model.float()
    return network
