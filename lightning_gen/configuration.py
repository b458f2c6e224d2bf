"""Where the configs are, and composing them with one clear line when that fails."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from lightning_gen.errors import UserError
from lightning_gen.multirun import check_launcher
from lightning_gen.registry import suggestion

PACKAGE = Path(__file__).parent


def config_dir() -> Path:
    """The folder ``configs``: inside an installed package, or beside it in a clone."""
    installed = PACKAGE / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def compose_config(overrides: Sequence[str], config_name: str = "train") -> dict[str, Any]:
    """The resolved config that the command line would run with, as plain values.

    Raises:
        UserError: an unknown key or option, or a value that does not resolve.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
            config = compose(config_name, overrides=list(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            return to_plain(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, overrides, config_name)) from error
    finally:
        GlobalHydra.instance().clear()


def compose_data(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The resolved config of a data set alone.

    Args:
        name: an option of ``configs/data``.
        overrides: ``key=value`` options of the set; keys of other groups have their full name (``paths.data_dir=...``).

    Raises:
        UserError: an unknown name, key or option.
    """
    full = [key if key.startswith(("data.", "data@", "paths.")) else f"data.{key}" for key in overrides]
    config: dict[str, Any] = compose_config([f"data={name}", "metrics=none", *full])["data"]
    return config


def to_plain(config: DictConfig) -> dict[str, Any]:
    """A composed config, resolved, without Hydra's own section.

    A group for which ``none`` was chosen is None, whatever an experiment writes into it.
    """
    plain = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]),
        resolve=True,
        throw_on_missing=True,
    )
    assert isinstance(plain, dict)
    choices: dict[Any, Any] = dict(HydraConfig.get().runtime.choices)
    return {str(key): None if choices.get(key) == "none" else value for key, value in plain.items()}


def check_command_line() -> None:
    """Compose what a plain run on ``sys.argv`` will compose, to fail with one line where Hydra would print several.

    Raises:
        UserError: an unknown key or option, a value that does not resolve, or a launcher that is not installed.
    """
    arguments = get_args_parser().parse_known_args(sys.argv[1:])[0]
    check_launcher(arguments.overrides, arguments.multirun)
    unusual = ("help", "hydra_help", "version", "cfg", "info", "multirun", "shell_completion", "config_dir")
    if not any(getattr(arguments, name, None) for name in unusual):
        compose_config(arguments.overrides, arguments.config_name or "train")


def _explain(error: Exception, overrides: Sequence[str], config_name: str) -> str:
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no default: give it as {error.full_key}=..."
    text = " ".join(str(error).split())
    for override in overrides:
        key = override.split("=")[0].lstrip("+~")
        if f"'{key}'" in text and "Could not" in text and "Available options" not in text:
            with initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
                known = _keys(compose(config_name))
            return f"Unknown config key {key!r}.{_nearest(key, known)}"
    return text


def _nearest(key: str, known: list[str]) -> str:
    siblings = [name for name in known if name.rpartition(".")[0] == key.rpartition(".")[0]]
    return suggestion(key, siblings or known) if siblings or "." in key else suggestion(key, known[:40])


def _keys(config: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in map(str, config):
        keys.append(f"{prefix}{key}")
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none():
            keys += _keys(node, f"{prefix}{key}.")
    return keys
