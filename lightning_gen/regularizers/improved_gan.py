"""Feature matching, historical averaging and label smoothing (Salimans et al. 2016, Improved techniques for GANs)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.losses import regularization
from lightning_gen.regularizers.base import Players, Regularizer, Step, regularizers


@regularizers.register("feature_matching")
class FeatureMatching(Regularizer):
    """The generator learns to give the discriminator's features the mean that they have for real images (section 3.1).

    Args:
        weight: factor of the distance.
        norm: ``l2`` or ``l1`` (`feature_distance`).
        replaces_loss: whether the distance stands in the place of the generator's adversarial loss, as in the paper.

    Raises:
        UserError: another norm.
    """

    generator_sees_real = True

    def __init__(self, weight: float = 1.0, norm: Literal["l2", "l1"] = "l2", replaces_loss: bool = True) -> None:
        super().__init__()
        if norm not in ("l2", "l1"):
            raise UserError(f"model.regularizers.feature_matching.norm must be l2 or l1, not {norm!r}")
        self.weight = weight
        self.norm = norm
        self.replaces_generator_loss = replaces_loss

    def generator_term(self, step: Step) -> Tensor:
        """The weighted distance."""
        assert step.real is not None
        real_features = step.real.features.detach().float()
        return self.weight * regularization.feature_distance(real_features, step.fake.features.float(), self.norm)


@regularizers.register("historical_averaging")
class HistoricalAveraging(Regularizer):
    """Each player's parameters are drawn to their average over its steps: |theta - mean_i theta[i]|^2 (section 3.3).

    The average is over all parameter values that the player's steps began with, this one's included.

    Args:
        weight: factor of the squared distance, for each player; the paper names none.
    """

    generator_average: Tensor
    discriminator_average: Tensor
    generator_steps: Tensor
    discriminator_steps: Tensor

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.players: Players

    def check(self, players: Players) -> None:
        """Make the averages: here, because other regularizers may add parameters until all are built."""
        self.players = players
        for name in ("generator", "discriminator"):
            self.register_buffer(f"{name}_average", torch.zeros_like(_flat_parameters(getattr(players, name))))
            self.register_buffer(f"{name}_steps", torch.tensor(0))

    def discriminator_term(self, step: Step) -> Tensor:
        """Follow the average, then the weighted distance."""
        return self._term(self.players.discriminator, self.discriminator_average, self.discriminator_steps)

    def generator_term(self, step: Step) -> Tensor:
        """Follow the average, then the weighted distance."""
        return self._term(self.players.generator, self.generator_average, self.generator_steps)

    def _term(self, network: nn.Module, average: Tensor, steps: Tensor) -> Tensor:
        parameters = _flat_parameters(network)
        steps += 1
        average += (parameters.detach() - average) / steps
        return self.weight * regularization.squared_distance(parameters, average)


@regularizers.register("label_smoothing")
class LabelSmoothing(Regularizer):
    """The discriminator's target for real images is 1 - amount, that for fake images stays 0 (section 3.4).

    Args:
        amount: 0.1 in the paper.

    Raises:
        UserError: an amount that is no probability, or a loss that has no such target.
    """

    def __init__(self, amount: float = 0.1) -> None:
        super().__init__()
        if not 0 < amount < 1:
            raise UserError(f"model.regularizers.label_smoothing.amount must be between 0 and 1, not {amount}")
        self.amount = amount

    def check(self, players: Players) -> None:
        """Refuse losses that are no cross entropy."""
        if players.loss not in ("non_saturating", "minimax"):
            raise UserError(
                "model.regularizers.label_smoothing smooths the targets of a cross entropy, and "
                f"model.loss={players.loss} is none: set model.loss=non_saturating"
            )

    def discriminator_term(self, step: Step) -> Tensor:
        """What smoothing adds to the cross entropy of real images."""
        assert step.real is not None
        return regularization.label_smoothing(step.real.logits.float(), self.amount)


def _flat_parameters(network: nn.Module) -> Tensor:
    return torch.cat([parameter.float().flatten() for parameter in network.parameters()])
