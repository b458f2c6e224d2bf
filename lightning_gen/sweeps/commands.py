"""The command of a trial, word for word as W&B's agent builds it, and the overrides that this driver adds."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_gen.errors import UserError
from lightning_gen.registry import suggestion

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
"""W&B's command of a file that has none. Its ``--key=value`` no run here takes, so such a file is refused."""

OVERRIDE_MACROS = ("args_no_hyphens", "args_append_hydra", "args_override_hydra")
"""Macros for arguments of the form that a run here takes."""

MACROS = (
    "env",
    "interpreter",
    "program",
    "args",
    "args_no_equals",
    "args_no_boolean_flags",
    "args_json",
    *OVERRIDE_MACROS,
)

OWN_KEYS = ("run_name", "resume", "paths.output_dir")
"""Overrides that the driver gives to every run."""

_VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
_PLAIN = re.compile(r"[A-Za-z0-9_./~@%+-]+")


def check_command(given: Any) -> tuple[str, ...]:
    """The file's ``command`` as words.

    Raises:
        UserError: it is no list, holds an unknown macro, or passes no ``key=value``.
    """
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise UserError("command must be a list of words and macros, as [${env}, ${interpreter}, ${program}, ...]")
    words = tuple(str(word) for word in given)
    macros = [word[2:-1] for word in words if _is_macro(word)]
    for macro in macros:
        if macro not in MACROS:
            raise UserError(f"command: unknown macro ${{{macro}}}.{suggestion(macro, list(MACROS))}")
    if not any(macro in OVERRIDE_MACROS for macro in macros):
        raise UserError(
            "command must pass key=value, which is what a run takes: "
            "[${env}, ${interpreter}, ${program}, ${args_no_hyphens}]"
        )
    return words


def trial_command(command: Sequence[str], program: str, values: Mapping[str, Any]) -> list[str]:
    """The words that W&B's agent would start for a trial.

    Args:
        command: words and macros.
        program: the script.
        values: of the parameters, in their order.
    """
    pairs = [f"{name}={value}" for name, value in values.items()]
    replaced: dict[str, list[str]] = {
        "env": ["/usr/bin/env"],
        "interpreter": ["python"],
        "program": [program],
        "args": [f"--{pair}" for pair in pairs],
        "args_no_equals": [word for name, value in values.items() for word in (f"--{name}", str(value))],
        "args_no_hyphens": pairs,
        "args_no_boolean_flags": [
            f"--{name}" if value is True else f"--{name}={value}"
            for name, value in values.items()
            if value is not False
        ],
        "args_json": [json.dumps(dict(values))],
        "args_append_hydra": [f"+{pair}" for pair in pairs],
        "args_override_hydra": [f"++{pair}" for pair in pairs],
    }
    words = [_VARIABLE.sub(lambda match: os.environ.get(match[1], match[1]), word) for word in command]
    return [part for word in words for part in (replaced[word[2:-1]] if _is_macro(word) else [word])]


def check_overrides(overrides: Sequence[str], seeds: Sequence[int] | None) -> None:
    """Refuse what is no override, and those that the driver itself gives.

    Raises:
        UserError: naming the option to use instead.
    """
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals and not key.startswith("~"):
            raise UserError(f"{override!r} is no override: after -- give key=value, for every trial")
        if key.lstrip("+") == "paths.output_dir":
            raise UserError("paths.output_dir is given by --output-dir")
        if key.lstrip("+") in OWN_KEYS:
            raise UserError(f"{key} is given to every trial by the sweep itself: leave it out")
        if key.lstrip("+") == "seed" and seeds:
            raise UserError("seed is given by --seeds: leave one of them out")


def own_overrides(run_name: str, output_dir: Path, seed: int | None) -> list[str]:
    """What the driver adds at the end of a command: which run this is, that it goes on if it was stopped, its seed."""
    values = [f"run_name={run_name}", "resume=auto", f"paths.output_dir={quote(str(output_dir))}"]
    return values if seed is None else [*values, f"seed={seed}"]


def quote(text: str) -> str:
    """A text as Hydra's command line takes it for a value."""
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def find_program(program: str) -> Path:
    """The training script, from the working directory, as W&B's agent looks for it.

    Raises:
        UserError: it is not there.
    """
    path = Path(program)
    if not path.is_file():
        raise UserError(f"There is no program {program} in {Path.cwd()}: start the sweep in the folder that holds it")
    return path


def trial_environment(worker: int, workers: int) -> dict[str, str]:
    """The variables of a trial's process.

    ``python`` means the interpreter of this process. The cores are shared out among the workers of this machine unless
    ``OMP_NUM_THREADS`` is set, and so are the devices that ``CUDA_VISIBLE_DEVICES`` lists.

    Args:
        worker: number of the worker on this machine, from 0.
        workers: how many there are.
    """
    environment = {key: value for key, value in os.environ.items() if key != "LIGHTNING_GEN_RUN"}
    folder = str(Path(sys.executable).parent)
    if shutil.which("python", path=folder):
        environment["PATH"] = os.pathsep.join((folder, environment.get("PATH", os.defpath)))
    if workers > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    devices = [device for device in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if device.strip()]
    if devices and workers > 1:
        own = devices[worker::workers] or [devices[worker % len(devices)]]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return environment


def _is_macro(word: str) -> bool:
    return word.startswith("${") and word.endswith("}") and not _VARIABLE.search(word)
