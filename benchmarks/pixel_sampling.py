"""Drawing images of MNIST's size from pixel models: with cached activations against the whole network for each pixel.

    python benchmarks/pixel_sampling.py [--images 24] [--rounds 3] [--dry-run]

Networks are those of experiment=pixelcnn_mnist and gated_pixelcnn_mnist with random weights; speed does not depend on
them. The ways take turns in one process, so load on the machine that comes and goes falls on all; every round gives one
ratio. The cached way draws in float64, as `PixelModel.sample` does; without a cache the same network is timed in
float64, which must give the same bits, and in float32, which is faster. Either way no row below the pixel is computed.
Rewrites a section of docs/results.md.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results_page import rewrite_section
from lightning_gen.configuration import compose_config
from lightning_gen.models.pixel_model import PixelModel
from lightning_gen.networks.pixel_network import fill_pixels
from lightning_gen.registry import construct
from lightning_gen.seeds import make_rng

SIZE = 28
NAMES = {"pixelcnn": "PixelCNN", "gated_pixelcnn": "Gated PixelCNN"}


def sampler(model: PixelModel, dtype: torch.dtype, use_cache: bool, number: int) -> Callable[[], Tensor]:
    """Draws ``number`` images, always the same."""
    network = copy.deepcopy(model.network).to(dtype).eval()

    def sample() -> Tensor:
        rng = make_rng("pixel_sampling")
        images = torch.zeros(number, 1, SIZE, SIZE, dtype=dtype)
        fill_pixels(network, images, 0, lambda given: model.law.sample(given, generator=rng), use_cache=use_cache)
        return images

    return sample


def measure(name: str, number: int, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Seconds of every way in every round, and how many pixels float32 drew otherwise than float64."""
    torch.manual_seed(0)
    spec = compose_config([f"experiment={name}_mnist"])["model"]
    model = construct(spec, PixelModel, image_shape=(1, SIZE, SIZE))
    ways = {
        "cached": sampler(model, torch.float64, True, number),
        "naive float32": sampler(model, torch.float32, False, number),
        "naive float64": sampler(model, torch.float64, False, number),
    }
    sampler(model, torch.float64, True, number)()
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    different = 0
    for _ in range(rounds):
        drawn = {}
        for way, sample in ways.items():
            start = time.perf_counter()
            drawn[way] = sample()
            seconds[way].append(time.perf_counter() - start)
        if not torch.equal(drawn["cached"], drawn["naive float64"]):
            raise SystemExit(f"{name}: the cached way gave other images")
        different = int((drawn["naive float32"] != drawn["cached"]).sum())
    return seconds, different


def main() -> None:
    """Measure, print and rewrite the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true", help="print, and leave docs/results.md as it is")
    options = parser.parse_args()

    lines = [
        "| model | cached, images/s | naive, images/s | times faster | naive in float32, images/s | times faster |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    differences = []
    for name, title in NAMES.items():
        seconds, different = measure(name, options.images, options.rounds)
        cells = [title, f"{options.images / statistics.median(seconds['cached']):.2f}"]
        for way in ("naive float64", "naive float32"):
            ratios = [slow / fast for slow, fast in zip(seconds[way], seconds["cached"], strict=True)]
            cells.append(f"{options.images / statistics.median(seconds[way]):.3f}")
            cells.append(f"{statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f})")
        lines.append(f"| {' | '.join(cells)} |")
        differences.append(f"{different} for {title}")
    total = options.images * SIZE * SIZE
    lines += [
        "",
        f"{options.images} images of {SIZE}x{SIZE} at once, medians of {options.rounds} rounds (smallest to largest "
        f"ratio), {torch.get_num_threads()} threads ({platform.machine()}), torch {torch.__version__.split('+')[0]}. "
        f"Cached and naive images were the same bits; of {total:,} pixels float32 drew others: "
        f"{', '.join(differences)}.",
    ]
    if options.dry_run:
        print("\n".join(lines))
    else:
        rewrite_section("pixel_sampling", lines)


if __name__ == "__main__":
    main()
