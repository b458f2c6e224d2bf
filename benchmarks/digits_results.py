"""The table and pictures of DCGAN on digits in docs/results.md: the default run at three seeds.

    python benchmarks/digits_results.py [--seeds 0 1 2] [--output-dir runs/results]

Trains each seed by the command a user would type, scores the untrained generator of the same seed and the training
images themselves under the same protocol, and rewrites the section between the markers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from results_page import IMAGES, ROOT, machine, rewrite_section

from lightning_gen.callbacks.scores import evaluate_model
from lightning_gen.configuration import compose_config
from lightning_gen.metrics.frechet import frechet_distance
from lightning_gen.metrics.reference import compute_statistics
from lightning_gen.tracking.run_directory import RunDirectory
from lightning_gen.training import build_parts


def baselines(seed: int, output_dir: Path) -> tuple[float, float]:
    """fd_digits of the untrained generator and of the training images (the floor)."""
    config = compose_config([f"seed={seed}", f"paths.output_dir={output_dir}"])
    torch.manual_seed(seed)
    parts = build_parts(config)
    evaluator = parts.evaluator
    assert evaluator is not None
    reference = parts.data.reference_set(evaluator.reference_split).images
    evaluator.set_reference(parts.data.name, reference)
    with parts.model.evaluation():
        untrained = evaluate_model(evaluator, parts.model)[0].value
    training_images = parts.data.split("train").images
    assert len(training_images) == evaluator.num_samples
    extractor = evaluator.extractor
    floor = frechet_distance(compute_statistics(training_images, extractor), compute_statistics(reference, extractor))
    return untrained, floor


def train(seed: int, output_dir: Path) -> RunDirectory:
    """The default run, with nothing but the seed and the place given."""
    command = [sys.executable, "train.py", f"seed={seed}", f"run_name=seed{seed}-{int(time.time())}"]
    subprocess.run([*command, f"paths.output_dir={output_dir}"], cwd=ROOT, check=True)
    return RunDirectory(max(output_dir.glob(f"*/seed{seed}-*"), key=os.path.getmtime))


def main() -> None:
    """Run, and rewrite the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output-dir", type=Path, default=Path("runs/results"))
    arguments = parser.parse_args()
    output_dir = arguments.output_dir.resolve()
    IMAGES.mkdir(exist_ok=True)
    rows, record = [], {}
    for number, seed in enumerate(arguments.seeds):
        untrained, floor = baselines(seed, output_dir)
        run = train(seed, output_dir)
        record = json.loads(run.record_file.read_text(encoding="utf-8"))
        score = record["scores"][0]
        rows.append(
            f"| {seed} | {score['value']:.2f} | {untrained:.0f} | {score['value'] / untrained:.4f} | {floor:.2f} | "
            f"{score['value'] / floor:.1f} | {record['train_seconds']:.0f} | {record['images_per_second']:.0f} |"
        )
        if number == 0:
            shutil.copy(max(run.samples.glob("*.png")), IMAGES / "dcgan_digits_samples.png")
            shutil.copy(max(run.interpolations.glob("*.png")), IMAGES / "dcgan_digits_interpolation.png")
            shutil.copy(max(run.interpolations.glob("*.gif")), IMAGES / "dcgan_digits_interpolation.gif")
    rewrite_section(
        "dcgan_digits",
        [
            "| seed | fd_digits | untrained | ratio | floor | times floor | training s | images/s |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"{record['images_seen']:,} images seen in {record['iterations']:,} iterations, "
            f"{sum(record['parameters'].values()):,} parameters, {record['scores'][0]['protocol']['num_samples']:,} "
            f"samples, protocol `{record['scores'][0]['protocol_hash']}`. {machine([record])}. The floor is the "
            "distance of the training images themselves.",
            "",
            "![samples](images/dcgan_digits_samples.png) ![interpolation](images/dcgan_digits_interpolation.png)",
        ],
    )


if __name__ == "__main__":
    main()
