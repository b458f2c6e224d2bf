from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_gen.callbacks.monitors import LossMonitor
from lightning_gen.errors import UserError
from lightning_gen.tracking.run_directory import RunDirectory


def test_losses_that_only_some_iterations_have_are_checked_and_the_newest_of_each_is_known(tmp_path: Path) -> None:
    """On a GPU the losses of many iterations are read together."""
    monitor = LossMonitor(RunDirectory(tmp_path))
    steps = [{"discriminator": 1.0}, {"generator": 2.0, "cycle": 3.0}, {"generator": 4.0, "cycle": 5.0}]
    monitor._pending = [
        (number, {name: torch.tensor(value) for name, value in losses.items()})
        for number, losses in enumerate(steps, start=1)
    ]
    monitor.check()
    assert monitor.latest == {"discriminator": 1.0, "generator": 4.0, "cycle": 5.0}
    monitor._pending = [
        (4, {"discriminator": torch.tensor(1.5)}),
        (5, {"generator": torch.tensor(1.0), "cycle": torch.tensor(float("nan"))}),
    ]
    with pytest.raises(UserError, match="cycle is nan at iteration 5"):
        monitor.check()
