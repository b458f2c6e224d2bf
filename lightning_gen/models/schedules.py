"""Schedules that `torch.optim.lr_scheduler` lacks, stepped once an iteration."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class RateAndMomentumSchedule(LRScheduler):
    """A learning rate that falls exponentially while momentum rises linearly (Goodfellow et al. 2014, published code).

    After t iterations the rate is ``max(lr / decay ** t, min_lr)``, and momentum has gone ``min(t /
    momentum_iterations, 1)`` of the way from the optimizer's to ``final_momentum``.

    Args:
        optimizer: one with a momentum, such as SGD.
        decay: factor above 1 by which the rate falls in each iteration.
        min_lr: lowest rate.
        final_momentum: momentum at the end.
        momentum_iterations: iterations until then.
        last_epoch: iterations so far, -1 before the first.

    Raises:
        ValueError: an optimizer without momentum, or numbers out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        decay: float,
        min_lr: float,
        final_momentum: float,
        momentum_iterations: int,
        last_epoch: int = -1,
    ) -> None:
        if any("momentum" not in group for group in optimizer.param_groups):
            raise ValueError(f"{type(optimizer).__name__} has no momentum: use SGD")
        if decay < 1 or momentum_iterations < 1 or not 0 <= final_momentum < 1:
            raise ValueError("decay and momentum_iterations must be at least 1, final_momentum in [0, 1)")
        self.decay = decay
        self.min_lr = min_lr
        self.final_momentum = final_momentum
        self.momentum_iterations = momentum_iterations
        self.base_momenta = [group["momentum"] for group in optimizer.param_groups]
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the parameter groups after ``last_epoch`` iterations."""
        # A negative power underflows to 0 where a positive one would overflow.
        return [max(base * self.decay**-self.last_epoch, self.min_lr) for base in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Set rates and momenta of the next iteration."""
        super().step(epoch)
        share = min(self.last_epoch / self.momentum_iterations, 1.0)
        for group, base in zip(self.optimizer.param_groups, self.base_momenta, strict=True):
            group["momentum"] = base + share * (self.final_momentum - base)


class ConstantThenLinear(LRScheduler):
    """A learning rate that stays and then falls linearly to zero (Zhu et al. 2017, section 4).

    After t of T iterations the rate is ``lr * min(1, (T - t) / (T - constant_share * T))``, and 0 after all T.

    Args:
        optimizer: any.
        total_iters: T.
        constant_share: share of the iterations, in [0, 1), in which the rate stays.
        last_epoch: iterations so far, -1 before the first.

    Raises:
        ValueError: numbers out of range.
    """

    def __init__(
        self, optimizer: Optimizer, total_iters: int, constant_share: float = 0.5, last_epoch: int = -1
    ) -> None:
        if total_iters < 1 or not 0 <= constant_share < 1:
            raise ValueError(
                f"total_iters must be at least 1, not {total_iters} (trainer.max_steps), and constant_share "
                f"in [0, 1), not {constant_share}"
            )
        self.total_iters = total_iters
        self.constant_share = constant_share
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the parameter groups after ``last_epoch`` iterations."""
        left = max(0, self.total_iters - self.last_epoch)
        share = min(1.0, left / (self.total_iters * (1 - self.constant_share)))
        return [base * share for base in self.base_lrs]


class LinearWarmUp(LRScheduler):
    """A learning rate that rises linearly, stays, and may fall linearly again.

    After t iterations the rate is ``lr * min(1, (t + 1) / warmup_iters)`` and, with T = ``total_iters``, no more than
    ``lr * (T - t) / T``.

    Args:
        optimizer: any.
        warmup_iters: iterations until the rate is the optimizer's.
        total_iters: iterations after which it would be 0; None for a rate that stays.
        last_epoch: iterations so far, -1 before the first.

    Raises:
        ValueError: numbers out of range.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_iters: int, total_iters: int | None = None, last_epoch: int = -1
    ) -> None:
        if warmup_iters < 1 or (total_iters is not None and total_iters < 1):
            raise ValueError(
                f"warmup_iters and total_iters must be at least 1, not {warmup_iters} and {total_iters}"
                " (trainer.max_steps)"
            )
        self.warmup_iters = warmup_iters
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the parameter groups after ``last_epoch`` iterations."""
        share = min(1.0, (self.last_epoch + 1) / self.warmup_iters)
        if self.total_iters is not None:
            share = min(share, max(0, self.total_iters - self.last_epoch) / self.total_iters)
        return [base * share for base in self.base_lrs]


class FallingPower(LRScheduler):
    """A learning rate that falls as a power of the share of training done (Ganin et al. 2016, section 5.2.2).

    After the share p of ``total_iters`` iterations the rate is ``lr / (1 + alpha p) ** beta``; from there on it stays.

    Args:
        optimizer: any.
        total_iters: iterations of the training.
        alpha: see above.
        beta: see above.
        last_epoch: iterations so far, -1 before the first.

    Raises:
        ValueError: numbers out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int,
        alpha: float = 10.0,
        beta: float = 0.75,
        last_epoch: int = -1,
    ) -> None:
        if total_iters < 1 or alpha < 0 or beta < 0:
            raise ValueError(
                f"total_iters must be at least 1, not {total_iters} (trainer.max_steps), alpha and beta at least 0"
            )
        self.total_iters = total_iters
        self.alpha = alpha
        self.beta = beta
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the parameter groups after ``last_epoch`` iterations."""
        share = min(self.last_epoch / self.total_iters, 1.0)
        return [base / (1 + self.alpha * share) ** self.beta for base in self.base_lrs]
