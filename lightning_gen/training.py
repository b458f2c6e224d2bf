"""A run, from config to record: compose, build, check, train, score, record."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from rich.console import Console
from rich.table import Table

from lightning_gen.callbacks.monitors import Throughput
from lightning_gen.callbacks.preemption import Preemption
from lightning_gen.callbacks.schedule import find_callback
from lightning_gen.callbacks.scores import RecordKeeper, check_scores
from lightning_gen.configuration import PACKAGE, check_command_line, config_dir, to_plain
from lightning_gen.data import ImageDataModule
from lightning_gen.errors import UserError, first_line
from lightning_gen.metrics.evaluator import Evaluator
from lightning_gen.models import GenerativeModel, load_model, read_checkpoint
from lightning_gen.multirun import check_multirun, one_of_many
from lightning_gen.registry import construct
from lightning_gen.tracking.logs import KeepsRecord
from lightning_gen.tracking.processes import check_slurm, check_srun, process_rank, slurm_environment
from lightning_gen.tracking.record import (
    config_digest,
    format_score,
    git_commit,
    hardware,
    package_versions,
    write_record,
)
from lightning_gen.tracking.run_claim import claim_run
from lightning_gen.tracking.run_directory import RunDirectory
from lightning_gen.tracking.run_lock import release
from lightning_gen.tracking.settings import defining, settings_digest
from lightning_gen.tracking.storage_errors import storage_errors

SHARDING = ("fsdp", "deepspeed", "model_parallel")
"""Strategies that spread a network over processes, which these models do not take (docs/clusters.md)."""


@dataclass
class Parts:
    """What a config builds before anything is written."""

    data: ImageDataModule
    model: GenerativeModel
    evaluator: Evaluator | None


def main() -> None:
    """Console entry: one line and status 2 for mistakes of the user, a traceback for ours."""
    try:
        check_command_line()
    except UserError as error:
        _fail(error)
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")(_run_composed)()


def _run_composed(config: DictConfig) -> float | None:
    try:
        plain = to_plain(config)
        check_multirun(plain)
        with one_of_many():
            record = train(plain)
    except UserError as error:
        _fail(error)
    scores = record["scores"] if record else []
    return scores[0]["value"] if scores else None


def _fail(error: UserError) -> None:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)


def train(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Train, score and record one run.

    Args:
        config: a resolved config of plain values (see `lightning_gen.configuration.compose_config`).

    Returns:
        The run record; None on ranks other than zero.

    Raises:
        UserError: a mistake in the config, found before the first iteration and before anything is written; or a
            training that diverged.
    """
    quieten()
    check_trainer(config["trainer"], config["model"])
    torch.manual_seed(config["seed"])
    parts = build_parts(config)
    if config["ckpt_path"]:
        start_from(Path(config["ckpt_path"]), parts.model)
    run, checkpoint = claim_run(config)
    try:
        with storage_errors(run):
            return _train_in(run, checkpoint, config, parts)
    finally:
        release(run.path)


def _train_in(
    run: RunDirectory, checkpoint: Path | None, config: Mapping[str, Any], parts: Parts
) -> dict[str, Any] | None:
    if checkpoint is not None and process_rank() == 0:
        run.remove_leftovers()
        run.rewind_metrics(read_checkpoint(checkpoint)["generative_model"]["iteration"])
    if parts.data.labelled_indices is not None:
        kept = run.keep_labelled(parts.data.labelled_indices.tolist(), write=process_rank() == 0)
        parts.data.labelled_indices = torch.tensor(kept, dtype=torch.int64)
    trainer = build_trainer(config, parts, run)
    if trainer.is_global_zero:
        run.write_config(config)
    if config["compile"]:
        parts.model.compile_networks()

    status = "failed"
    record = None
    try:
        if trainer.is_global_zero and not run.record_file.exists():
            write_record(run.record_file, describe(config, parts, trainer, run, "interrupted"))
        trainer.fit(parts.model, datamodule=parts.data, ckpt_path=checkpoint, weights_only=True)
        status = "completed"
    except (KeyboardInterrupt, SystemExit):
        status = "interrupted"
        raise
    finally:
        try:
            if trainer.is_global_zero:
                record = describe(config, parts, trainer, run, status)
                write_record(run.record_file, record)
        finally:
            _close(trainer, status, record)
    if record is not None:
        print_summary(record, run)
    return record


def _close(trainer: pl.Trainer, status: str, record: dict[str, Any] | None) -> None:
    """Let go of what outlives the fit: loggers, signals, a job to requeue and processes that Lightning started."""
    for logger in trainer.loggers:
        if record is not None and isinstance(logger, KeepsRecord):
            logger.log_record(record)
        logger.finalize("success" if status == "completed" else "failed")
    preemption = find_callback(trainer, Preemption)
    if preemption is not None:
        if trainer.is_global_zero:
            preemption.leave()
        preemption.give_signals_back()
    if status == "failed" and trainer.strategy.launcher is not None:
        # One that hangs would outlive this process.
        trainer.strategy.launcher.kill(signal.SIGKILL)


def check_trainer(trainer: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Refuse trainer options that do nothing under manual optimization, or that this machine cannot serve.

    Raises:
        UserError: naming the option that works.
    """
    if trainer.get("gradient_clip_val"):
        raise UserError(
            "trainer.gradient_clip_val does nothing in manual optimization: set model.gradient_clip_norm instead"
        )
    if trainer.get("accumulate_grad_batches", 1) != 1:
        raise UserError("trainer.accumulate_grad_batches does nothing in manual optimization: raise data.batch_size")
    if str(trainer.get("precision")).startswith("16") and model.get("gradient_clip_norm"):
        raise UserError("float16 gradients are scaled, so model.gradient_clip_norm would clip wrongly: use bf16-mixed")
    if str(trainer.get("strategy")).startswith(SHARDING):
        raise UserError(
            f"trainer.strategy={trainer['strategy']} shards networks, which these models freeze, differentiate twice "
            "and draw from in one process alone: set trainer=ddp"
        )
    if trainer.get("max_steps", -1) == -1 and trainer.get("max_epochs") in (None, -1):
        raise UserError("the run would never end: set trainer.max_steps or trainer.max_epochs")
    check_srun()
    try:
        probe = pl.Trainer(**_trainer_options(trainer), logger=False, enable_checkpointing=False)
    except (MisconfigurationException, ImportError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"trainer: {first_line(error)}") from error
    check_slurm(probe.num_devices * probe.num_nodes)


def build_parts(config: Mapping[str, Any]) -> Parts:
    """Data, model and evaluator, checked against each other; nothing is written.

    Raises:
        UserError: anything in the config or in the data files that would fail later.
    """
    data = construct(config["data"], ImageDataModule)  # type: ignore[type-abstract]
    evaluator = construct(config["metrics"], Evaluator) if config["metrics"] else None
    model = build_model(config, data)
    data.check()
    model.check_batch_size(data.batch_size)
    model.prepare_training()
    if evaluator is not None:
        check_scores(evaluator, model, data)
    return Parts(data, model, evaluator)


def build_model(config: Mapping[str, Any], data: ImageDataModule) -> GenerativeModel:
    """The config's model for the images of ``data``, with its moving average."""
    model = construct(
        config["model"],
        GenerativeModel,  # type: ignore[type-abstract]
        image_shape=data.image_shape,
        num_classes=data.num_classes,
        class_names=list(data.class_names),
        label_law=data.label_law,
        labelled_per_class=data.labelled_per_class,
        num_training_images=len(data.split("train")),
        input_shape=getattr(data, "input_shape", None),
        paired=getattr(data, "paired", None),
    )
    model.seed = config["seed"]
    if config["ema"]:
        model.add_average(**config["ema"])
    return model


def start_from(path: Path, model: GenerativeModel) -> None:
    """Copy the weights of a checkpoint into a new model; counters start at zero.

    Raises:
        UserError: the checkpoint holds another model.
    """
    checkpoint = read_checkpoint(path)
    if type(load_model(checkpoint)) is not type(model):
        raise UserError(f"{path} holds a {checkpoint['generative_model']['class']}, not a {type(model).__name__}")
    try:
        model.load_state_dict(checkpoint["state_dict"], strict=False)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit the model: {str(error).splitlines()[1].strip()}") from error


def build_trainer(config: Mapping[str, Any], parts: Parts, run: RunDirectory) -> pl.Trainer:
    """The trainer with the config's callbacks and, on rank zero, loggers."""
    scores = {}
    if parts.evaluator is not None:
        scores = {parts.evaluator.main_score: parts.evaluator.main_score_lower_is_better}
    derived = {
        "run": run,
        "run_path": run.path,
        "evaluator": parts.evaluator,
        "save_dir": run.path,
        "group": config["experiment_name"],
        "scores": scores,
        "tags": config["tags"],
        "resumes": config["resume"] == "auto",
    }
    callbacks = [
        construct(spec, pl.Callback, **derived)
        for name, spec in config["callbacks"].items()
        if spec and not (name == "scores" and parts.evaluator is None)
    ]
    loggers: list[Logger] = []
    if process_rank() == 0:
        chosen = (config["logger"] or {}).values()
        loggers = [construct(spec, Logger, **derived) for spec in chosen if spec]  # type: ignore[type-abstract]
        for logger in loggers:
            logger.log_hyperparams(dict(config))
    trainer = pl.Trainer(
        **_trainer_options(config["trainer"]), callbacks=callbacks, logger=loggers or False, default_root_dir=run.path
    )
    if hasattr(trainer.strategy, "_timeout"):
        # A strategy that is named by a string takes no options.
        trainer.strategy._timeout = timedelta(minutes=config["timeout_minutes"])
    keeper = RecordKeeper(lambda: write_record(run.record_file, describe(config, parts, trainer, run, "interrupted")))
    trainer.callbacks.insert(0, keeper)  # type: ignore[attr-defined]
    return trainer


def _trainer_options(trainer: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: value for key, value in trainer.items() if key != "_target_"}
    environment = slurm_environment()
    return options if environment is None else {**options, "plugins": [environment, *(options.get("plugins") or [])]}


def describe(
    config: Mapping[str, Any], parts: Parts, trainer: pl.Trainer, run: RunDirectory, status: str
) -> dict[str, Any]:
    """The run record as it stands (`docs/design.md`)."""
    evaluations = run.read_metrics()
    throughput = find_callback(trainer, Throughput)
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "status": status,
        "experiment": config["experiment_name"],
        "run_name": run.name,
        "model": config["model_name"],
        "data": parts.data.name,
        "seed": config["seed"],
        "iterations": parts.model.iteration,
        "images_seen": parts.model.images_seen,
        "train_seconds": round(throughput.train_seconds, 3) if throughput else None,
        "images_per_second": round(throughput.images_per_second, 2) if throughput else None,
        "parameters": parts.model.parameter_counts(),
        "scores": evaluations[-1]["scores"] if evaluations else [],
        "config_digest": config_digest(defining(config)),
        "settings_digest": settings_digest(config),
        "git_commit": git_commit(PACKAGE),
        "versions": package_versions(),
        "hardware": hardware(name, trainer.world_size, trainer.num_nodes, torch.get_num_threads()),
    }


def print_summary(record: Mapping[str, Any], run: RunDirectory) -> None:
    """A small table of what came out, on standard output."""
    table = Table(title=f"{record['experiment']}/{record['run_name']}: {record['status']}", title_justify="left")
    table.add_column("what")
    table.add_column("value", overflow="fold")
    for score in record["scores"]:
        table.add_row(score["name"], format_score(score))
    table.add_row("images seen", f"{record['images_seen']:,} in {record['iterations']:,} iterations")
    if record["images_per_second"]:
        table.add_row(
            "speed", f"{record['images_per_second']:,.0f} images/s, {record['train_seconds']:,.0f} s of training"
        )
    table.add_row("files", str(run.path))
    for folder in (run.samples, run.interpolations):
        newest = max(folder.glob("*[0-9].png"), default=None)
        if newest is not None:
            table.add_row(folder.name, str(newest.relative_to(run.path)))
    Console().print(table)


def quieten() -> None:
    """Leave the terminal to our own lines."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning.*")
    warnings.filterwarnings("ignore", module="torchmetrics.*")
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    # Schedules count iterations, and an optimizer may have no step in the first ones.
    warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)` before")


if __name__ == "__main__":
    main()
