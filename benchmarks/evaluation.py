"""FID, Inception Score and KID of a folder of images: our evaluation against torch-fidelity's, in one run.

    python benchmarks/evaluation.py [--images 2000] [--rounds 1]
    python benchmarks/evaluation.py --distance

Both sides score the same PNG files of 32x32 photographs against the same folder, whose features (torch-fidelity) or
statistics (ours) are in their caches already, with the same random Inception weights: speed does not depend on them.
They take turns. A second line is the evaluation that makes the cache. ``--distance`` measures the Frechet distance
alone, of 2,048 features, ours with the cached root of the reference.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch_fidelity
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lightning_gen.images import save_png
from lightning_gen.metrics.frechet import frechet_distance
from lightning_gen.metrics.statistics import FeatureStatistics, GaussianStatistics
from lightning_gen.scoring import ScoringJob, score
from tests.metrics.inception_weights import make_inception_weights, photograph_crops

NAMES = {
    "fid": "frechet_inception_distance",
    "inception_score": "inception_score_mean",
    "kid": "kernel_inception_distance_mean",
}


def seconds(function: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def alternate(rounds: int, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """Print medians of alternating rounds and the ratio."""
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    our_time, their_time = (statistics.median(side) for side in zip(*times, strict=True))
    ratios = [theirs / ours for ours, theirs in times]
    print(f"torch-fidelity  {their_time:8.1f} s")
    print(f"lightning_gen   {our_time:8.1f} s")
    print(f"ratio           {statistics.median(ratios):8.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


def measure_evaluation(number: int, rounds: int) -> None:
    """FID, Inception Score and KID of ``number`` images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = photograph_crops(2 * number, 32)
        for side, part in zip(("first", "second"), images.chunk(2), strict=True):
            (folder / side).mkdir()
            for index, image in enumerate(part):
                save_png(image, folder / side / f"{index:05d}.png")
        weights = folder / "inception.pth"
        make_inception_weights(weights, images[:32])
        found: dict[str, dict[str, float]] = {}

        def ours() -> None:
            job = ScoringJob(
                folder / "first",
                str(folder / "second"),
                [f"paths.cache_dir={folder}/cache"],
                ["fid", "inception_score", "kid"],
                weights=str(weights),
            )
            found["ours"] = {each["name"]: each["value"] for each in score(job)}

        def theirs() -> None:
            found["theirs"] = torch_fidelity.calculate_metrics(
                input1=str(folder / "first"),
                input2=str(folder / "second"),
                input2_cache_name="second",
                cache_root=f"{folder}/theirs",
                cuda=False,
                fid=True,
                isc=True,
                kid=True,
                kid_subset_size=min(1000, number),
                feature_extractor_weights_path=str(weights),
                verbose=False,
            )

        print(f"{number} images against {number}, {torch.get_num_threads()} threads; nothing cached:")
        alternate(1, ours, theirs)
        print("the reference cached:")
        alternate(rounds, ours, theirs)
        for our_name, their_name in NAMES.items():
            values = found["ours"][our_name], found["theirs"][their_name]
            print(f"{our_name:16s}{values[0]:.8g} and {values[1]:.8g}, relative {abs(values[0] / values[1] - 1):.1e}")


def measure_distance(rounds: int, number: int = 4000, dimensions: int = 2048) -> None:
    """The distance of two covariances of 2,048 features."""
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(dimensions, dimensions, dtype=torch.float64, generator=rng) / dimensions**0.5
    sides = [torch.randn(number, dimensions, dtype=torch.float64, generator=rng) @ mixing + shift for shift in (0, 1)]
    ours: list[GaussianStatistics] = []
    for side in sides:
        sums = FeatureStatistics(dimensions)
        sums.update(side)
        ours.append(sums.compute())
    theirs = [fid_features_to_statistics(side) for side in sides]
    _ = ours[1].factor  # what the cache holds
    print(f"distance of {dimensions} features, {torch.get_num_threads()} threads:")
    alternate(
        rounds,
        lambda: frechet_distance(*ours),
        lambda: fid_statistics_to_metric(*theirs, verbose=False),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--distance", action="store_true")
    options = parser.parse_args()
    if options.distance:
        measure_distance(max(options.rounds, 5))
    else:
        measure_evaluation(options.images, options.rounds)


if __name__ == "__main__":
    main()
