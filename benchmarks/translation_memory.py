"""Peak memory of training pix2pix, CycleGAN and DiscoGAN, by default on single color images of 256x256.

    python benchmarks/translation_memory.py [--image-size 256] [--batch-size 1] [--base-channels 64] [--precision bf16]

Each model is trained for three iterations in a process of its own: by then its optimizers have their states. On a GPU
the peak is what torch allocated; on the CPU it is the process's largest resident memory, less what it had before the
model was built.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
from multiprocessing.connection import Connection
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader
from translation_loops import DATA, translation_config

from lightning_gen.data import PairBatch
from lightning_gen.models import GenerativeModel
from lightning_gen.registry import construct
from lightning_gen.training import quieten

ITERATIONS = 3
MIB = 2**20


def resident_peak() -> int:
    """Bytes, the largest so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(name: str, arguments: argparse.Namespace, result: Connection) -> None:
    """Train, and send parameters and peak bytes."""
    quieten()
    widths = [f"model.{player}.base_channels={arguments.base_channels}" for player in ("generator", "discriminator")]
    spec = translation_config(name, arguments.image_size, arguments.batch_size, *widths)["model"]
    shape = (3, arguments.image_size, arguments.image_size)
    images = torch.rand(2, arguments.batch_size, *shape) * 2 - 1
    batches: Any = [PairBatch(*images, None, None)] * ITERATIONS
    on_gpu = torch.cuda.is_available()
    before = resident_peak()
    model = construct(spec, GenerativeModel, image_shape=shape, input_shape=shape)  # type: ignore[type-abstract]
    trainer = pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=1,
        max_steps=ITERATIONS,
        precision="bf16-mixed" if arguments.precision == "bf16" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, train_dataloaders=DataLoader(batches, batch_size=None))
    peak = torch.cuda.max_memory_allocated() if on_gpu else resident_peak() - before
    result.send((sum(model.parameter_counts().values()), peak))


def main() -> None:
    """Measure the models one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--base-channels", type=int, default=64)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments = parser.parse_args()
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    fresh = multiprocessing.get_context("spawn")
    for name in arguments.models:
        receiver, sender = fresh.Pipe(duplex=False)
        process = fresh.Process(target=measure, args=(name, arguments, sender))
        process.start()
        sender.close()
        parameters, peak = receiver.recv()
        process.join()
        print(
            f"{name}, {where} {arguments.precision}, batch {arguments.batch_size} of {arguments.image_size}x"
            f"{arguments.image_size}: {parameters / 1e6:.2f} M parameters, peak {peak / MIB:,.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
