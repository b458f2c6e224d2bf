"""Transfer learning: another run's features under a new classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

from pytorch_lightning.callbacks import BaseFinetuning
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_gen.errors import UserError
from lightning_gen.models.base import GenerativeModel, ImageBatch
from lightning_gen.models.feature_sources import PixelFeatures, build_source
from lightning_gen.models.labels import check_has_classes, labelled_part
from lightning_gen.models.optimizers import build_optimizer, build_schedule
from lightning_gen.networks.encoders import perceptron

Mode = Literal["freeze", "finetune", "scratch"]


class Transfer(GenerativeModel):
    """A new head on a trained body, of which all, a growing part or nothing is trained; by cross-entropy on labels.

    ``freeze``: the body stays in evaluation mode and none of its parameters and buffers changes. ``finetune``: the body
    is trained at a lower rate than the head and, with ``unfreeze_every``, layer by layer from the last (gradual
    unfreezing: Howard and Ruder 2018, "Universal language model fine-tuning for text classification", section 3.3);
    a layer that is still frozen is in evaluation mode. ``scratch``: the same network, newly drawn, at the head's rate,
    which is what the other two are compared with.

    Args:
        image_shape: (C, H, W) of the images.
        body: of the features (see `build_source`); a run or a network of torchvision.
        optimizer: spec (see `build_optimizer`).
        mode: see above.
        hidden: widths of the head's hidden layers; none for a linear head.
        body_lr_factor: rate of the body over that of the head when it is finetuned.
        unfreeze_every: the head alone trains in the first so many iterations, the body's last layer joins it in the
            next so many, then the layer before; None for all from the first iteration on.
        num_classes: K of the data, 0 for a set without classes.

    Raises:
        UserError: a set without classes, a body that cannot be trained, or options out of range.
    """

    network_names: ClassVar[tuple[str, ...]] = ("body", "head")
    averaged_networks: ClassVar[tuple[str, ...]] = ("body", "head")

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        body: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        mode: Mode = "freeze",
        hidden: Sequence[int] = (),
        body_lr_factor: float = 0.1,
        unfreeze_every: int | None = None,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        check_has_classes("model=transfer", num_classes)
        if mode not in get_args(Mode):
            raise UserError(f"model.mode must be freeze, finetune or scratch, not {mode!r}")
        if body_lr_factor <= 0:
            raise UserError(f"model.body_lr_factor must be above 0, not {body_lr_factor}: set model.mode=freeze")
        if unfreeze_every is not None and unfreeze_every < 1:
            raise UserError(f"model.unfreeze_every must be null or at least 1, not {unfreeze_every}")
        self.mode = mode
        self.optimizer_spec = optimizer
        self.body_lr_factor = body_lr_factor if mode == "finetune" else 1.0
        self.unfreeze_every = unfreeze_every if mode == "finetune" else None
        self.body = build_source(body, image_shape, "model.body", newly_drawn=mode == "scratch")
        if isinstance(self.body, PixelFeatures):
            raise UserError("model.body is not set: set model.body.run to a run whose features are transferred")
        self.hparams["body"] = self.body.spec
        self._layers = self.body.layers()
        if mode != "freeze" and not self._layers:
            raise UserError(f"the features of {self.body.features_of} cannot be trained: set model.mode=freeze")
        self.head = perceptron([self.body.num_features, *hidden, num_classes], "relu")
        self._unfreeze(0 if mode == "freeze" else len(self._layers))

    @property
    def trained_layers(self) -> int:
        """How many of the body's layers, from the last, the coming iteration trains."""
        if self.mode == "freeze":
            return 0
        if self.unfreeze_every is None:
            return len(self._layers)
        return min(len(self._layers), self.iteration // self.unfreeze_every)

    def setup(self, stage: str) -> None:
        """Have all that will be trained known to a distributed strategy before it takes the model."""
        del stage
        self._unfreeze(0 if self.mode == "freeze" else len(self._layers))

    def train(self, mode: bool = True) -> Transfer:
        """Training or evaluation mode; layers that are not trained stay in evaluation mode."""
        super().train(mode)
        if mode:
            self._set_modes()
        return self

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One, with a group of the head's parameters and, unless the body is frozen, one of the body's."""
        groups: list[dict[str, Any]] = [{"params": list(self.head.parameters())}]
        body = [parameter for parameter in self.body.parameters() if parameter.requires_grad]
        if self.mode != "freeze":
            groups.append({"params": body})
        optimizer = build_optimizer(self.optimizer_spec, groups)  # type: ignore[arg-type]
        for group in optimizer.param_groups[1:]:
            group["lr"] *= self.body_lr_factor
        schedule = build_schedule(self.optimizer_spec, optimizer)
        return [optimizer], [schedule] if schedule is not None else []

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """One step on the labelled images of a batch."""
        images, labels = labelled_part(batch)
        self._unfreeze(self.trained_layers)
        self._set_modes()
        loss = cross_entropy(self.classify(images), labels)
        (optimizer,) = self.optimizer_list()
        self.minimize(loss, optimizer, self)
        return {"classification": loss}

    def features(self, images: Tensor) -> Tensor:
        """What the head sees, (N, D) float32, of images (N, C, H, W) in [-1, 1]."""
        return self.body(images)

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (N, K) of images (N, C, H, W) in [-1, 1]."""
        return self.head(self.features(images)).float()

    def _unfreeze(self, number: int) -> None:
        """Have the last ``number`` layers of the body train, and no other."""
        BaseFinetuning.freeze(self.body, train_bn=False)
        BaseFinetuning.make_trainable(self._layers[len(self._layers) - number :])

    def _set_modes(self) -> None:
        everything = self.trained_layers == len(self._layers) and self.mode != "freeze"
        self.body.train(everything)
        if not everything:
            for layer in self._layers[len(self._layers) - self.trained_layers :]:
                for module in layer:
                    module.train()
