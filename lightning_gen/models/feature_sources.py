"""Where features of images come from: pixels, the model of another run, or a network of torchvision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, interpolate
from torch.nn.utils import parametrize

from lightning_gen.errors import UserError, first_line
from lightning_gen.models.base import GenerativeModel
from lightning_gen.models.capabilities import Classifies, Encodes, HasFeatureMaps, HasFeatures
from lightning_gen.models.checkpoints import load_part
from lightning_gen.registry import construct, suggestion

GRID = 4
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""Of the images in [0, 1] that torchvision's networks were trained on."""

Which = Literal["maps", "last"]


class FeatureSource(nn.Module):
    """Features (N, D) of images (N, C, H, W) in [-1, 1].

    Attributes:
        num_features: D.
        spec: plain values from which `build_source` makes another of this shape, whose weights a checkpoint holds.
        features_of: what has the features, for messages.
    """

    num_features: int
    spec: dict[str, Any]
    features_of: str

    def layers(self) -> list[list[nn.Module]]:
        """The modules whose parameters change the features, in the order in which they were built.

        A layer begins at each module with a weight of two or more dimensions; norms belong to the layer before them.
        Each module counts with its own parameters, and parametrized weights (spectral or weight norm) with the module
        that has them.
        """
        owners: dict[str, list[Tensor]] = {}
        for name in self.used_parameters():
            owner, parametrized, _ = name.partition(".parametrizations.")
            owners.setdefault(owner if parametrized else name.rpartition(".")[0], []).append(self.get_parameter(name))
        layers: list[list[nn.Module]] = []
        for owner, parameters in owners.items():
            module = self.get_submodule(owner)
            if not layers or any(parameter.ndim > 1 for parameter in parameters):
                layers.append([])
            layers[-1].append(module)
            if parametrize.is_parametrized(module):
                layers[-1] += list(module.parametrizations.values())  # type: ignore[operator]
        return layers

    def used_parameters(self) -> list[str]:
        """Names of the parameters that change the features."""
        names, parameters = zip(*self.named_parameters(), strict=True) if list(self.parameters()) else ((), ())
        asked = [parameter.requires_grad for parameter in parameters]
        with torch.enable_grad():
            self.requires_grad_(True)
            features = self(self._probe_images())
            gradients: Sequence[Tensor | None] = [None] * len(parameters)
            if features.requires_grad:
                gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
        for parameter, before in zip(parameters, asked, strict=True):
            parameter.requires_grad_(before)
        return [name for name, gradient in zip(names, gradients, strict=True) if gradient is not None]

    def finish(self, image_shape: tuple[int, int, int]) -> None:
        """Measure ``num_features``, in evaluation mode; a subclass calls it once it is built."""
        self.image_shape = image_shape
        self.eval()
        with torch.no_grad():
            self.num_features = self(self._probe_images()).shape[1]

    def _probe_images(self) -> Tensor:
        return torch.zeros(1, *self.image_shape)


class PixelFeatures(FeatureSource):
    """The pixels."""

    features_of = "pixels"

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.spec = {}
        self.num_features = math.prod(image_shape)

    def forward(self, images: Tensor) -> Tensor:
        """Pixels (N, C * H * W)."""
        return images.flatten(1)


class RunFeatures(FeatureSource):
    """Features of a trained model, with its averaged weights; what they do not depend on is dropped.

    Args:
        run: a run directory or a checkpoint; or a spec of the model, whose weights are to be loaded.
        image_shape: (C, H, W) of the images.
        which: ``maps``: all feature maps, `pooled`, where the model has some; ``last``: what its last layer sees
            (`HasFeatures`, `Encodes`), and of a classifier the input of its last linear layer.
        newly_drawn: the same network with the weights that it began with, drawn from the global generator.
        key: of the config that names the run, for messages.

    Raises:
        UserError: no features, or what `load_part` raises.
    """

    def __init__(
        self,
        run: str | Mapping[str, Any],
        image_shape: tuple[int, int, int],
        which: Which = "maps",
        newly_drawn: bool = False,
        key: str = "model.source.run",
    ) -> None:
        super().__init__()
        model, model_spec = load_part(run, GenerativeModel, "a model with features", image_shape, key)  # type: ignore[type-abstract]
        if newly_drawn:
            model = construct(model_spec, GenerativeModel).requires_grad_(False)  # type: ignore[type-abstract]
        self.model = model
        self.features_of = type(model).__name__
        self.which = which
        self.spec = {"run": model_spec, "features": which}
        if not isinstance(model, HasFeatureMaps | HasFeatures | Encodes):
            if not isinstance(model, Classifies):
                raise UserError(f"{key}: {self.features_of} has no features: choose a run of another model")
            without_last_linear(model)
        self.finish(image_shape)
        used = {name.split(".")[1] for name in self.used_parameters()}
        for name, child in list(model.named_children()):
            if used and name not in used and any(True for _ in child.parameters()):
                setattr(model, name, None)

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, D) float32."""
        model = self.model
        if self.which == "maps" and isinstance(model, HasFeatureMaps):
            return pooled(model.feature_maps(images)).float()
        if isinstance(model, HasFeatures):
            return model.features(images).float().flatten(1)
        if isinstance(model, Encodes):
            return model.encode(images).float().flatten(1)
        assert isinstance(model, Classifies)
        return model.classify(images).float().flatten(1)


class TorchvisionFeatures(FeatureSource):
    """What the last linear layer of a classifier of torchvision sees; grey images have three equal channels.

    Args:
        name: as in `torchvision.models.get_model`.
        image_shape: (C, H, W) of the images.
        weights: a file of the network's state; ``DEFAULT`` for torchvision's own, which must be in torch's hub folder;
            None for a newly drawn network.
        size: to which images are resized first (bilinear, antialiased); None for as they are.
        key: of the config that these options stand in, for messages.

    Raises:
        UserError: an unknown network, missing weights or others', or images that it cannot take.
    """

    def __init__(
        self,
        name: str,
        image_shape: tuple[int, int, int],
        weights: str | None = None,
        size: int | None = None,
        key: str = "model.source",
    ) -> None:
        super().__init__()
        # A second of imports that only such features need.
        from torchvision import models

        known = models.list_models(module=models)
        if name not in known:
            raise UserError(f"{key}.torchvision: torchvision has no classifier {name!r}.{suggestion(name, known)}")
        # These draw auxiliary classifiers, which nothing here looks at, and warn of how they draw their weights.
        extra = {"init_weights": True, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        network = models.get_model(name, weights=None, **extra)
        removed = without_last_linear(network)
        if weights is not None:
            path, url = _default_weights(name) if weights == "DEFAULT" else (Path(weights), None)
            _load(network, path, url, removed, f"{key}.weights")
        self.network = network.requires_grad_(False)
        self.size = size
        self.features_of = name
        self.spec = {"torchvision": name, "weights": None, "size": size}
        for key_of, values in (("mean", IMAGENET_MEAN), ("deviation", IMAGENET_DEVIATION)):
            self.register_buffer(key_of, torch.tensor(values)[:, None, None], persistent=False)
        try:
            self.finish(image_shape)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(
                f"{key}.torchvision={name} cannot take images of {tuple(image_shape)} ({first_line(error)}): set "
                f"{key}.size=224"
            ) from error

    mean: Tensor
    deviation: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, D) float32."""
        if self.size is not None:
            images = interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        return self.network(((images + 1) / 2 - self.mean) / self.deviation).float().flatten(1)


def build_source(
    spec: Mapping[str, Any], image_shape: tuple[int, int, int], key: str, newly_drawn: bool = False
) -> FeatureSource:
    """The source that a config describes: its ``run``, else its ``torchvision`` network, else pixels.

    Args:
        spec: ``run``, ``features`` (see `RunFeatures`); ``torchvision``, ``weights``, ``size``.
        image_shape: (C, H, W) of the images.
        key: of the config, for messages.
        newly_drawn: the same network without its training.

    Raises:
        UserError: an unknown key, two sources, or what the source raises.
    """
    known = ("run", "features", "torchvision", "weights", "size")
    for name in spec:
        if name not in known:
            raise UserError(f"{key} has no option {name!r}.{suggestion(name, list(known))}")
    if spec.get("features", "maps") not in ("maps", "last"):
        raise UserError(f"{key}.features must be maps or last, not {spec['features']!r}")
    run, network = spec.get("run"), spec.get("torchvision")
    if run is not None and network is not None:
        raise UserError(f"{key} has a run and a network of torchvision: set {key}.run=null or {key}.torchvision=null")
    if run is not None:
        return RunFeatures(run, image_shape, spec.get("features", "maps"), newly_drawn, f"{key}.run")
    if network is not None:
        weights = None if newly_drawn else spec.get("weights")
        return TorchvisionFeatures(network, image_shape, weights, spec.get("size"), key)
    return PixelFeatures(image_shape)


def pooled(maps: Sequence[Tensor]) -> Tensor:
    """Features (N, D): maps (N, C', H', W') max-pooled to 4x4, smaller ones and vectors (N, D') as they are."""
    parts = []
    for layer in maps:
        if layer.ndim == 4:
            height, width = layer.shape[2:]
            layer = adaptive_max_pool2d(layer, (min(GRID, height), min(GRID, width)))
        parts.append(layer.flatten(1))
    return torch.cat(parts, 1)


def without_last_linear(network: nn.Module) -> str:
    """Have a classifier return what its last linear layer sees; returns the layer's name.

    Raises:
        UserError: it has none.
    """
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"{type(network).__name__} has no linear layer, whose input would be its features")
    network.set_submodule(linear[-1], nn.Identity())
    return linear[-1]


def _default_weights(name: str) -> tuple[Path, str]:
    """Where torch's hub keeps torchvision's own weights, and where they are published."""
    from torchvision import models

    url = models.get_model_weights(name).DEFAULT.url
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name, url


def _load(network: nn.Module, path: Path, url: str | None, removed: str, key: str) -> None:
    if not path.is_file():
        remedy = f"download {url} to there" if url else "put the weights there"
        raise UserError(f"{key}: there is no file {path}: {remedy}, or set {key} to a file of them or to null")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict({name: value for name, value in state.items() if not name.startswith(f"{removed}.")})
    except Exception as error:  # pickle, zip and torch raise nearly anything
        raise UserError(f"{key}: {path} does not hold the network's weights ({first_line(error)})") from error
