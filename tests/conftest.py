"""Shared by all tests: small runs, in this process or in one of their own, without network, account or data folder."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

SMALL = (
    "experiment_name=tiny",
    "logger=none",
    "trainer=cpu",
    "model.generator.base_channels=4",
    "model.discriminator.base_channels=4",
    "model.latent_dim=8",
    "data.batch_size=32",
    "metrics=random",
    "metrics.num_samples=100",
    "metrics.block_size=32",
    "callbacks.samples.num_samples=4",
    "callbacks.interpolation.rows=2",
    "callbacks.interpolation.steps=3",
    "callbacks.interpolation.frames=4",
)
"""Overrides that make a run of the default model take seconds."""


def pytest_sessionstart() -> None:
    """Hear Ctrl-C: shells ignore it in background commands, and the processes of tests would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No run of another test, no W&B account and no network proxies leak in."""
    before = dict(os.environ)
    folders = ("LIGHTNING_GEN_DATA_DIR", "LIGHTNING_GEN_EXTRACTORS_DIR", "LIGHTNING_GEN_WEIGHTS_DIR")
    for variable in ("LIGHTNING_GEN_RUN", "WANDB_API_KEY", "WANDB_MODE", "CI", *folders):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LIGHTNING_GEN_OUTPUT_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield
    for variable in set(os.environ) - set(before):
        del os.environ[variable]


@pytest.fixture
def train_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run training in this process: ``train_here("seed=1", ...) -> result.json`` as a dictionary."""
    from lightning_gen.configuration import compose_config
    from lightning_gen.training import train

    def run(*overrides: str) -> dict[str, Any]:
        monkeypatch.delenv("LIGHTNING_GEN_RUN", raising=False)
        record = train(compose_config([*SMALL, *overrides]))
        assert record is not None
        return record

    return run


def run_command(*arguments: str, cwd: Path, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment and return its output; ``train.py`` and ``lightning-gen`` are found."""
    return subprocess.run(
        command_line(*arguments), cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False, **options
    )


def command_line(*arguments: str) -> list[str]:
    """The full command of ``train.py ...`` or ``lightning-gen ...``."""
    program, *rest = arguments
    if program == "train.py":
        return [sys.executable, str(ROOT / "train.py"), *rest]
    return [sys.executable, "-m", "lightning_gen.cli", *rest]


fork = multiprocessing.get_context("fork")


def forked(target: Callable[..., None], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """A forked process that runs ``target(*arguments)``, started."""
    process = fork.Process(target=_run_forked, args=(target, arguments), daemon=True)
    process.start()
    return process


def _run_forked(target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    import torch

    # Torch's threads do not survive a fork: an operation that asks for them would wait for ever.
    torch.set_num_threads(1)
    # Forked processes share the lock of all progress bars: killed while it held that, one would stop the tests.
    torch.hub.tqdm.set_lock(threading.RLock())
    target(*arguments)
