"""Mutual information between codes and images (Chen et al. 2016, InfoGAN)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.losses.regularization import categorical_code_loss, continuous_code_loss
from lightning_gen.regularizers.base import Players, Regularizer, Step, regularizers


@regularizers.register("mutual_information")
class MutualInformation(Regularizer):
    """Both players gain where the codes can be read off the fake images (eq. 5 and 6).

    Q(c | x) is the discriminator's head ``codes``: logits of the categorical codes, means of the continuous ones, whose
    variance is 1 as in the paper's code. The term is the bound's -E[log Q(c | G(z, c))], summed over the codes; the
    codes' entropy is constant and left out.

    Args:
        weight: lambda of the categorical codes.
        continuous_weight: lambda of the continuous codes; 1 in the paper's code, where section 6 advises a smaller one.
        hidden: units of the head's hidden layer.

    Raises:
        UserError: latents without codes.
    """

    def __init__(self, weight: float = 1.0, continuous_weight: float = 1.0, hidden: int = 128) -> None:
        super().__init__()
        self.weight = weight
        self.continuous_weight = continuous_weight
        self.hidden = hidden
        self.players: Players

    def build(self, players: Players) -> None:
        """Add the head."""
        if not players.codes:
            raise UserError(
                "model.regularizers.mutual_information needs latents with codes: "
                "set model.codes, such as {categorical: [10], continuous: 2}"
            )
        self.players = players
        players.discriminator.add_head("codes", sum(_size(code.columns) for code in players.codes), self.hidden)

    def discriminator_term(self, step: Step) -> Tensor:
        """The weighted negative log-likelihood; the fake images carry no gradient."""
        return self._term(step)

    def generator_term(self, step: Step) -> Tensor:
        """The weighted negative log-likelihood."""
        return self._term(step)

    def _term(self, step: Step) -> Tensor:
        outputs = step.fake.heads["codes"].float()
        sizes = [_size(code.columns) for code in self.players.codes]
        terms = []
        for code, part in zip(self.players.codes, outputs.split(sizes, 1), strict=True):
            wanted = step.latents[:, code.columns]
            if code.kind == "categorical":
                terms.append(self.weight * categorical_code_loss(part, wanted))
            else:
                terms.append(self.continuous_weight * continuous_code_loss(part, wanted))
        return torch.stack(terms).sum()


def _size(columns: slice) -> int:
    return columns.stop - columns.start
