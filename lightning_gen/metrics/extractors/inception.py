"""The Inception-v3 of the FID and Inception Score literature: a fast forward of our own over the usual weight file.

Architecture: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision". Weights: the TensorFlow
graph of 2015-12-05 (1008 classes) that Salimans et al. 2016 and Heusel et al. 2017 scored with, in the PyTorch file
that torch-fidelity and pytorch-fid use. In that graph average pools leave out the padding, and the last block's pool is
a max pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_gen.errors import UserError
from lightning_gen.metrics.extractors.base import FeatureExtractor, Features, extractors, sha256_of_file
from lightning_gen.metrics.extractors.published import published_weights

WEIGHTS_FILE = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS_FILE}"
OFFICIAL_SHA256_PREFIX = "6726825d"
INPUT_SIZE = 299
NUM_FEATURES = 2048
NUM_CLASSES = 1008
SPATIAL_CHANNELS = 7
BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")
# Images at once on the CPU. The stem's maps are large and leave the caches: 16 took longer per image than 4 on two
# cores. In the blocks more at once means fewer parallel regions, at whose ends threads wait for one another.
STEM_CHUNK = 4
BLOCKS_CHUNK = 16


class FoldedConvolution(nn.Conv2d):
    """A convolution, with the batch norm that follows it folded in, and its ReLU.

    Args:
        source: name of the convolution with batch norm in the weight file.
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: a side, or (height, width).
        stride: in both directions.
        valid: no padding; otherwise a stride of 1 keeps height and width. Strides of 2 never pad.
    """

    def __init__(
        self,
        source: str,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 1,
        stride: int = 1,
        valid: bool = False,
    ) -> None:
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        padding = (0, 0) if valid or stride > 1 else (height // 2, width // 2)
        # Parameters without storage: every one comes from the weight file.
        super().__init__(in_channels, out_channels, (height, width), stride, padding, device="meta")
        self.source = source

    def forward(self, inputs: Tensor) -> Tensor:
        """Non-negative (N, out_channels, H', W') float32 from (N, in_channels, H, W)."""
        return super().forward(inputs).relu_()

    def source_shapes(self) -> dict[str, torch.Size]:
        """Names and shapes of the tensors in the weight file that make up this layer."""
        norms = {f"{self.source}.bn.{key}": torch.Size([self.out_channels]) for key in BATCH_NORM_TENSORS}
        return {f"{self.source}.conv.weight": self.weight.shape, **norms}

    def fold(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights from the file's tensors; the product is formed in float64."""
        gain, shift, mean, variance = (state[f"{self.source}.bn.{key}"].double() for key in BATCH_NORM_TENSORS)
        scale = gain / (variance + BATCH_NORM_EPSILON).sqrt()
        kernels = state[f"{self.source}.conv.weight"].double() * scale.view(-1, 1, 1, 1)
        self.weight = nn.Parameter(kernels.float().contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = nn.Parameter((shift - mean * scale).float(), requires_grad=False)


class Parallel(nn.ModuleList):
    """Branches that read the same input; their outputs are concatenated along the channels in the order given."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, sum of the branches' channels, H', W') from (N, C, H, W)."""
        return torch.cat([branch(inputs) for branch in self], 1)


AVERAGE_POOL = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
MAX_POOL = nn.MaxPool2d(3, stride=1, padding=1)
HALVING_POOL = nn.MaxPool2d(3, stride=2)


def _chain(prefix: str, channels: int, *layers: Any) -> nn.Sequential:
    """Layers in a row: pools, and convolutions (name, out_channels, kernel size = 1, stride = 1, valid = False).

    The last may be a list of convolutions that read the same input. Names in the weight file begin with ``prefix``.
    """
    chain = nn.Sequential()
    for layer in layers:
        if isinstance(layer, nn.Module):
            chain.append(layer)
        elif isinstance(layer, list):
            chain.append(Parallel(_chain(prefix, channels, fork) for fork in layer))
        else:
            name, out_channels, *geometry = layer
            chain.append(FoldedConvolution(prefix + name, channels, out_channels, *geometry))
            channels = out_channels
    return chain


def _mixed(name: str, channels: int, *branches: tuple[Any, ...]) -> nn.Module:
    return Parallel(_chain(f"{name}.", channels, *layers) for layers in branches)


def _mixed_35(name: str, channels: int, pool_channels: int) -> nn.Module:
    """Block on 35x35 pixels (the paper's figure 5, with one 5x5 kept): to 224 + pool_channels channels."""
    return _mixed(
        name,
        channels,
        (("branch1x1", 64),),
        (("branch5x5_1", 48), ("branch5x5_2", 64, 5)),
        (("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
        (AVERAGE_POOL, ("branch_pool", pool_channels)),
    )


def _mixed_17(name: str, inner: int) -> nn.Module:
    """Block on 17x17 pixels with 7x7 kernels as 1x7 and 7x1 (figure 6): 768 channels to 768."""
    wide, tall = (1, 7), (7, 1)
    double = [("branch7x7dbl_2", inner, tall), ("branch7x7dbl_3", inner, wide), ("branch7x7dbl_4", inner, tall)]
    return _mixed(
        name,
        768,
        (("branch1x1", 192),),
        (("branch7x7_1", inner), ("branch7x7_2", inner, wide), ("branch7x7_3", 192, tall)),
        (("branch7x7dbl_1", inner), *double, ("branch7x7dbl_5", 192, wide)),
        (AVERAGE_POOL, ("branch_pool", 192)),
    )


def _mixed_8(name: str, channels: int, pool: nn.Module) -> nn.Module:
    """Block on 8x8 pixels whose 3x3 kernels fork into 1x3 beside 3x1 (figure 7): to 2048 channels."""
    fork = [("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))]
    double_fork = [("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))]
    return _mixed(
        name,
        channels,
        (("branch1x1", 320),),
        (("branch3x3_1", 384), fork),
        (("branch3x3dbl_1", 448), ("branch3x3dbl_2", 384, 3), double_fork),
        (pool, ("branch_pool", 192)),
    )


def _stem() -> nn.Sequential:
    """Float (N, 3, 299, 299) in [-1, 1) to (N, 192, 35, 35), without weights yet."""
    return nn.Sequential(
        _chain("", 3, ("Conv2d_1a_3x3", 32, 3, 2), ("Conv2d_2a_3x3", 32, 3, 1, True), ("Conv2d_2b_3x3", 64, 3)),
        HALVING_POOL,
        _chain("", 64, ("Conv2d_3b_1x1", 80), ("Conv2d_4a_3x3", 192, 3, 1, True)),
        HALVING_POOL,
    )


def _first_blocks() -> nn.Sequential:
    """Float (N, 192, 35, 35) to (N, 768, 17, 17), without weights yet."""
    return nn.Sequential(
        _mixed_35("Mixed_5b", 192, 32),
        _mixed_35("Mixed_5c", 256, 64),
        _mixed_35("Mixed_5d", 288, 64),
        _mixed(
            "Mixed_6a",
            288,
            (("branch3x3", 384, 3, 2),),
            (("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)),
            (HALVING_POOL,),
        ),
        _mixed_17("Mixed_6b", 128),
        _mixed_17("Mixed_6c", 160),
        _mixed_17("Mixed_6d", 160),
    )


def _last_blocks() -> nn.Sequential:
    """Float (N, 768, 17, 17) to (N, 2048, 8, 8), without weights yet."""
    separated_7x7 = [("branch7x7x3_1", 192), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1))]
    return nn.Sequential(
        _mixed_17("Mixed_6e", 192),
        _mixed(
            "Mixed_7a",
            768,
            (("branch3x3_1", 192), ("branch3x3_2", 320, 3, 2)),
            (*separated_7x7, ("branch7x7x3_4", 192, 3, 2)),
            (HALVING_POOL,),
        ),
        _mixed_8("Mixed_7b", 1280, AVERAGE_POOL),
        _mixed_8("Mixed_7c", 2048, MAX_POOL),
    )


def resize_tf1_bilinear(images: Tensor, size: int) -> Tensor:
    """Bilinear resize as TensorFlow 1 did it: output pixel ``i`` reads position ``i * H / size``, without antialiasing.

    With one replicated row and column more, that is the grid of ``align_corners=True`` for one output pixel more, whose
    step is ``(H + 1 - 1) / (size + 1 - 1)``; the extra outputs are cut off.

    Args:
        images: (N, C, H, W) float.
        size: height and width of the result.

    Returns:
        (N, C, size, size) of the same type and range.
    """
    padded = functional.pad(images, (0, 1, 0, 1), mode="replicate")
    resized = functional.interpolate(padded, size=(size + 1, size + 1), mode="bilinear", align_corners=True)
    return resized[:, :, :size, :size]


def resize_clean(images: Tensor, size: int) -> Tensor:
    """Bicubic resize with antialiasing and without rounding, as clean-fid does it (Parmar et al. 2022, section 3).

    Pillow's filter (a = -0.5) on floats, one channel at a time, clipped to the range of images.

    Args:
        images: (N, C, H, W) float in [-1, 127 / 128].
        size: height and width of the result.

    Returns:
        (N, C, size, size) in the same range.
    """
    return functional.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp_(-1, 127 / 128)


@extractors.register("inception")
class InceptionExtractor(FeatureExtractor):
    """The TF-ported Inception-v3 of FID and Inception Score: 2048 pooled features and 1008 logits without their bias.

    Takes RGB images of any size; grey ones are repeated to three equal channels. Weights other than the official file's
    (by SHA-256) are accepted, but their scores are not ranked. The spatial features are the first 7 channels of the
    17x17 maps that sFID takes (``mixed_6/conv`` of the graph; Nash et al. 2021, section 4.3).

    Args:
        weights: the weight file; None for ``weights-inception-2015-12-05-6726825d.pth`` in `weights_folder`,
            where it is downloaded to if it is missing.

    Raises:
        UserError: the file is missing and cannot be downloaded, or does not hold these weights.
    """

    name = "inception"
    num_features = NUM_FEATURES
    num_classes = NUM_CLASSES
    num_spatial = SPATIAL_CHANNELS * 17 * 17
    resize_name = f"tf1_bilinear_{INPUT_SIZE}"

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        path = published_weights(WEIGHTS_URL, OFFICIAL_SHA256_PREFIX, WEIGHTS_FILE, "Inception", weights)
        self.stem = _stem()
        self.first_blocks = _first_blocks()
        self.last_blocks = _last_blocks()
        convolutions = [module for module in self.modules() if isinstance(module, FoldedConvolution)]
        shapes = {"fc.weight": torch.Size([NUM_CLASSES, NUM_FEATURES]), "fc.bias": torch.Size([NUM_CLASSES])}
        for convolution in convolutions:
            shapes.update(convolution.source_shapes())
        state = _read_state(path, shapes)
        for convolution in convolutions:
            convolution.fold(state)
        # The logits as a 1x1 convolution follow the same switch for float32 as the rest.
        self.head = nn.Parameter(state["fc.weight"].float()[:, :, None, None].clone(), requires_grad=False)
        self.weights_sha256 = sha256_of_file(path)
        self.ranked = self.weights_sha256.startswith(OFFICIAL_SHA256_PREFIX)

    def forward(self, images: Tensor) -> Features:
        """Features (N, 2048) and spatial ones (N, 2023) >= 0 and logits (N, 1008), of uint8 images (N, 3 or 1, H, W).

        Raises:
            TypeError: the images are not uint8.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"Inception takes uint8 images, not {images.dtype}")
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False), _float32_convolutions():
            results = [self._extract(chunk) for chunk in _chunks(images, BLOCKS_CHUNK)]
        return Features(*(torch.cat(parts) for parts in zip(*results, strict=True)))

    def protocol(self) -> dict[str, Any]:
        """Name, weights, layer, resize, and which logits."""
        return {
            "name": self.name,
            "weights_sha256": self.weights_sha256,
            "layer": f"pool_{NUM_FEATURES}",
            "resize": self.resize_name,
            "logits": "unbiased",
        }

    def check_image_shape(self, image_shape: tuple[int, int, int]) -> None:
        """RGB or grey images of any size."""
        if image_shape[0] not in (1, 3):
            raise UserError(
                f"Extractor {self.name!r} takes RGB or grey images, not {image_shape[0]} channels: choose data of 1 or "
                "3 channels or use metrics=none"
            )

    def resize(self, images: Tensor) -> Tensor:
        """Images (N, C, 299, 299) of images (N, C, H, W), both float in [-1, 127 / 128]."""
        return resize_tf1_bilinear(images, INPUT_SIZE)

    def _extract(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = torch.cat([self.stem(self._network_input(chunk)) for chunk in _chunks(images, STEM_CHUNK)])
        maps = self.first_blocks(maps)
        features = self.last_blocks(maps).mean((2, 3), keepdim=True)
        logits = functional.conv2d(features, self.head).flatten(1)
        # The first branch of the block is that convolution.
        return features.flatten(1), logits, maps[:, :SPATIAL_CHANNELS].flatten(1)

    def _network_input(self, images: Tensor) -> Tensor:
        """Float (N, 3, 299, 299) in [-1, 1), channels last, from uint8 (N, 3 or 1, H, W)."""
        resized = self.resize(images.float().sub_(128).div_(128))
        return resized.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


@extractors.register("inception_clean")
class CleanInceptionExtractor(InceptionExtractor):
    """The same network behind clean-fid's resize: a protocol of its own, whose distance is ``clean_fid``."""

    name = "inception_clean"
    resize_name = f"pil_bicubic_{INPUT_SIZE}"

    def resize(self, images: Tensor) -> Tensor:
        """Images (N, C, 299, 299) of images (N, C, H, W), both float in [-1, 127 / 128]."""
        return resize_clean(images, INPUT_SIZE)


def _chunks(images: Tensor, size: int) -> tuple[Tensor, ...]:
    return images.split(size) if images.device.type == "cpu" else (images,)


@contextmanager
def _float32_convolutions() -> Iterator[None]:
    """Convolutions in full float32 on GPUs too, where TF32 is the default; the setting is put back."""
    cudnn = torch.backends.cudnn
    target, name, full = (
        (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    )
    before = getattr(target, name)
    setattr(target, name, full)
    try:
        yield
    finally:
        setattr(target, name, before)


def _read_state(path: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The tensors of the weight file, after a check that they are all there, and no others, in these shapes."""
    remedy = "set metrics.extractor.weights to the file " + WEIGHTS_FILE
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        state = {key: value for key, value in loaded.items() if not key.endswith(".num_batches_tracked")}
    # Whatever a file that is no state dict makes of the unpickler.
    except Exception as error:
        raise UserError(f"Inception weights: {path} is no PyTorch file of tensors: {remedy}") from error
    wrong = sorted(
        key for key in state.keys() | shapes.keys() if getattr(state.get(key), "shape", None) != shapes.get(key)
    )
    if wrong:
        raise UserError(
            f"Inception weights: {path} does not hold the TF-ported Inception-v3, {len(wrong)} tensors are missing, "
            f"unknown or of another shape ({wrong[0]}): {remedy}"
        )
    return state
