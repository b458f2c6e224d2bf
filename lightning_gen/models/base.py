"""The base of every model: manual optimization in which one iteration is one global step, and exact resume."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer, do_nothing_closure
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm

from lightning_gen.errors import UserError
from lightning_gen.models.averaging import Average, WeightAverage
from lightning_gen.models.power_average import PowerFunctionAverage
from lightning_gen.seeds import derive_seed, seed_global_rngs


class ImageBatch(Protocol):
    """What a data module hands to a model: images float32 (N, C, H, W) in [-1, 1], labels int64 (N,) or None."""

    images: Tensor
    labels: Tensor | None


class GenerativeModel(pl.LightningModule):
    """A model: networks, losses and optimizers, and what it can do (`lightning_gen.models.capabilities`).

    A subclass builds its networks as attributes, names them in ``network_names``, returns its optimizers from
    `configure_optimizers` and trains in `training_iteration`; the rest is here:

    - One `training_iteration` is one ``trainer.global_step``, however many optimizer steps it takes.
    - ``iteration`` and ``images_seen`` (over all ranks) are counted and kept in checkpoints.
    - All training randomness is drawn afresh from (seed, rank, images_seen) at the start of an iteration: ranks differ,
      nothing that runs between iterations can change it, and a resumed run draws the same.
    - Learning-rate schedules are stepped once an iteration.
    - An optional moving average of ``averaged_networks`` is updated at the end of the iteration and used by
      `evaluation`, so callbacks see the same weights in any order.

    Attributes:
        network_names: attributes that hold trained networks.
        averaged_networks: those of them that a moving average follows.
        seed: the run's seed.
        images_per_iteration: images over all ranks in the latest iteration.
        label_law: probabilities of the classes that a conditional model draws where it is given no labels, part of
            every score's protocol; None for a model without classes.
        batch_ended_at: `time.perf_counter` when the latest iteration and its callbacks were done.
    """

    network_names: ClassVar[tuple[str, ...]] = ()
    averaged_networks: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.seed = 0
        self.iteration = 0
        self.images_seen = 0
        self.images_per_iteration = 0
        self.batch_ended_at = 0.0
        self.average: Average | None = None
        self.label_law: list[float] | None = None

    @abstractmethod
    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """All optimizer steps of one iteration on one batch of this rank.

        Returns:
            name -> scalar loss, for the logs and the check that losses are finite.
        """

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse, before training, a number of images in a batch that the iteration cannot use.

        Raises:
            UserError: naming the key that has to change.
        """

    def prepare_training(self) -> None:
        """Load, before training, what it needs and checkpoints do not hold.

        Raises:
            UserError: it is missing; naming the remedy.
        """

    def sampler_settings(self) -> dict[str, Any]:
        """JSON-able settings, beside the weights, that change what `sample` draws; part of every score's protocol."""
        return {}

    def draw_labels(self, num_samples: int, *, generator: torch.Generator) -> Tensor:
        """Labels (num_samples,) int64 from ``label_law``, which must be set: the training set's."""
        assert self.label_law is not None
        law = torch.tensor(self.label_law, dtype=torch.float64, device=generator.device)
        return torch.multinomial(law, num_samples, replacement=True, generator=generator).to(self.device)

    def networks(self) -> dict[str, nn.Module]:
        """The trained networks by name."""
        return {name: getattr(self, name) for name in self.network_names}

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of every trained network."""
        return {name: sum(p.numel() for p in network.parameters()) for name, network in self.networks().items()}

    def add_average(self, **options: Any) -> None:
        """Follow ``averaged_networks`` by moving averages; call before training.

        Args:
            options: those of `PowerFunctionAverage` if ``relative_widths`` is among them, else of `WeightAverage`.

        Raises:
            UserError: the model has no network to average, or options that the average does not take.
        """
        if not self.averaged_networks:
            raise UserError(f"{type(self).__name__} has no network to average: set ema=none")
        average = PowerFunctionAverage if "relative_widths" in options else WeightAverage
        try:
            self.average = average(self._averaged(), **options)
        except TypeError as error:
            raise UserError(f"ema: {error}") from error

    def compile_networks(self) -> None:
        """Compile the networks in place with `torch.compile`; state-dict keys stay as they are."""
        for network in self.networks().values():
            network.compile()

    @contextmanager
    def evaluation(self, use_average: bool = True) -> Iterator[None]:
        """Evaluation mode, without gradients, with the averaged weights if there are any; undone to the bit on exit."""
        modes = {module: module.training for module in self.modules()}
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if use_average and self.average is not None:
                stack.enter_context(self.average.swapped_in(self._averaged()))
            self.eval()
            try:
                yield
            finally:
                for module, mode in modes.items():
                    module.training = mode

    def training_step(self, batch: ImageBatch, batch_idx: int) -> dict[str, Tensor]:
        """One iteration: `training_iteration` and the bookkeeping that every model shares."""
        del batch_idx
        seed_global_rngs(derive_seed(self.seed, self.global_rank, self.images_seen), self.device)
        with self._one_global_step():
            losses = self.training_iteration(batch)
        for schedule in self._schedules():
            schedule.step()
        self.images_per_iteration = len(batch.images) * self.trainer.world_size
        self.iteration += 1
        self.images_seen += self.images_per_iteration
        if self.average is not None:
            self.average.update(self._averaged(), self.images_per_iteration, self.images_seen)
        return {name: loss.detach() for name, loss in losses.items()}

    def optimizer_list(self) -> list[LightningOptimizer]:
        """The optimizers in the order of `configure_optimizers`; only steps through them are mixed-precision safe."""
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def minimize(
        self, loss: Tensor, optimizer: LightningOptimizer, network: nn.Module, clip_norm: float | None = None
    ) -> None:
        """One optimizer step on ``loss``; gradients of ``network`` are clipped to a total norm where asked."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
        optimizer.step()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note when the loop turned to the next batch: Lightning calls this after every callback's hook."""
        self.batch_ended_at = time.perf_counter()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the class, the counters and the average's settings, all plain values."""
        checkpoint["generative_model"] = {
            "class": f"{type(self).__module__}:{type(self).__qualname__}",
            "iteration": self.iteration,
            "images_seen": self.images_seen,
            "average": self.average and self.average.settings,
        }

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the counters."""
        self.iteration = checkpoint["generative_model"]["iteration"]
        self.images_seen = checkpoint["generative_model"]["images_seen"]

    def _averaged(self) -> dict[str, nn.Module]:
        return {name: getattr(self, name) for name in self.averaged_networks}

    def _schedules(self) -> list[Any]:
        schedules = self.lr_schedulers()
        return schedules if isinstance(schedules, list) else [schedules] if schedules is not None else []

    @contextmanager
    def _one_global_step(self) -> Iterator[None]:
        # Lightning counts every optimizer.step() of manual optimization as a global step
        # (Lightning-AI/pytorch-lightning#17958), which would make max_steps depend on the number of optimizers.
        optimizers = self.optimizer_list()
        count_begin, count_end = optimizers[-1]._on_before_step, optimizers[-1]._on_after_step
        for optimizer in optimizers:
            optimizer._on_before_step = optimizer._on_after_step = do_nothing_closure
        yield
        count_begin()
        count_end()


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within the context ``network`` passes gradients through but receives none, and none of its buffers changes.

    For one player's step through the other: no time is spent on weight gradients that would be thrown away. Batch norm
    still uses the batch's statistics but records none, and spectral norm takes no power iteration.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training and module.track_running_stats
    ]
    iterations = [module for module in network.modules() if isinstance(module, _SpectralNorm) and module.training]
    for parameter in parameters:
        parameter.requires_grad_(False)
    for norm in norms:
        norm.track_running_stats = False
    for iteration in iterations:
        iteration.training = False
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for norm in norms:
            norm.track_running_stats = True
        for iteration in iterations:
            iteration.training = True
