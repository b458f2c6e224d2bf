"""A sweeper that draws its parameters, the smallest of its kind: one run with a random seed."""

from __future__ import annotations

import random
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

ConfigStore.instance().store(
    group="hydra/sweeper", name="drawing", node={"_target_": "hydra_plugins.drawing_sweeper.DrawingSweeper"}
)


class DrawingSweeper(Sweeper):
    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        drawn = f"seed={random.SystemRandom().randrange(1000)}"
        return self.launcher.launch([[*arguments, drawn]], initial_job_idx=0)
