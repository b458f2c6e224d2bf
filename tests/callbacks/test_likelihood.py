"""Likelihood, reconstruction error and active units: their values, at any number of processes, and their records."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from lightning_gen.callbacks.likelihood import LikelihoodProtocol
from lightning_gen.configuration import compose_config
from lightning_gen.data.image_set import ImageSet
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.metrics.base import Score
from lightning_gen.scoring import ScoringJob, score
from lightning_gen.tracking.leaderboard import build_boards
from lightning_gen.tracking.record_files import FoundRun
from lightning_gen.training import train
from tests.conftest import forked
from tests.models.small_vae import small_vae
from tests.models.tiny import tiny_config


def images(number: int = 50) -> ImageSet:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (number, 1, 8, 8), generator=rng, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(number) % 4)


def measure(rank: int = 0, world_size: int = 1, block_size: int = 7, seed: int = 0, **options: Any) -> list[Score]:
    model = small_vae(importance_samples=2, **options)
    protocol = LikelihoodProtocol("set", "test", images(), block_size, seed)
    with model.evaluation():
        return protocol.measure(model, rank, world_size)


def values(scores: list[Score]) -> dict[str, float]:
    return {found.name: found.value for found in scores}


def measure_in(folder: str, rank: int, world_size: int, block_size: int) -> None:
    where = f"file://{folder}/rendezvous"
    distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=world_size)
    found = [each.to_json() for each in measure(rank, world_size, block_size)]
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


@pytest.mark.parametrize(("world_size", "block_size"), [(2, 7), (3, 7), (3, 40)])
def test_scores_are_equal_to_the_bit_at_any_number_of_processes(
    world_size: int, block_size: int, tmp_path: Path
) -> None:
    whole = tmp_path / "alone"
    whole.mkdir()
    # Alone in a process of the same kind: threads, of which these have one each, change the last bits.
    processes = [forked(measure_in, str(whole), 0, 1, block_size)]
    processes += [forked(measure_in, str(tmp_path), rank, world_size, block_size) for rank in range(world_size)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    alone = json.loads((whole / "0.json").read_text())
    for rank in range(world_size):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone


def test_bits_and_nats_are_means_over_images_with_their_standard_error() -> None:
    class Model(nn.Module):
        average = None
        images_seen = 5
        device = torch.device("cpu")
        likelihood_is_exact = True
        likelihood_settings = {"law": "mine"}  # noqa: RUF012

        def bits_per_dim(self, images: Tensor, labels: Tensor | None, *, generator: torch.Generator) -> Tensor:
            assert labels is not None
            return labels.float()

        def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
            return images + 0.5

    protocol = LikelihoodProtocol("set", "test", images(8), 3, 0)
    bits, nats, error = protocol.measure(Model())  # type: ignore[arg-type]
    assert (bits.name, nats.name, error.name) == ("bits_per_dim", "nll", "reconstruction_error")
    assert bits.value == pytest.approx(1.5)
    # labels 0 1 2 3 0 1 2 3: variance 10 / 7
    assert bits.std == pytest.approx(math.sqrt(10 / 7 / 8))
    assert nats.value == pytest.approx(1.5 * 64 * math.log(2))
    assert error.value == pytest.approx(0.25, rel=1e-6)
    assert error.std == pytest.approx(0, abs=1e-6)
    assert bits.protocol["metric"] == {"name": "bits_per_dim", "exact": True, "law": "mine"}
    assert bits.protocol["noise"] == {"seed": 0, "block_size": 3}
    assert bits.protocol["reference"] == {
        "dataset": "set",
        "split": "test",
        "size": 8,
        "digest": images(8).digest,
    }
    assert "noise" not in error.protocol
    assert all(each.lower_is_better and each.ranked for each in (bits, nats, error))


def test_a_score_is_that_of_the_model_itself_block_by_block() -> None:
    from lightning_gen.seeds import make_rng

    found = values(measure())
    model, chosen = small_vae(importance_samples=2), to_float(images().images)
    with model.evaluation():
        bits = torch.cat(
            [
                model.bits_per_dim(block, generator=make_rng("likelihood", 0, index))
                for index, block in enumerate(chosen.split(7))
            ]
        )
        error = (model.reconstruct(chosen) - chosen).square().mean()
    assert found["bits_per_dim"] == pytest.approx(float(bits.double().mean()), rel=1e-12)
    assert found["nll"] == pytest.approx(found["bits_per_dim"] * 64 * math.log(2))
    assert found["reconstruction_error"] == pytest.approx(float(error), rel=1e-5)


def test_the_seed_draws_other_noise_and_other_settings_have_other_protocols() -> None:
    first, again, other = measure(), measure(), measure(seed=1)
    assert values(first) == values(again)
    assert values(first)["nll"] != values(other)["nll"]
    assert values(first)["nll"] == pytest.approx(values(other)["nll"], rel=0.1)
    hashes = {
        each[1].protocol_hash for each in (first, other, measure(law={"name": "gaussian"}), measure(block_size=9))
    }
    assert len(hashes) == 4


def test_units_are_active_whose_mean_varies_over_images() -> None:
    model = small_vae()
    with torch.no_grad():
        last = model.encoder.layers[-1]  # type: ignore[index]
        last.weight.zero_()  # type: ignore[union-attr]
        first = model.encoder.layers[0]  # type: ignore[index]
        first.weight.zero_()  # type: ignore[union-attr]
        first.weight[0, 0] = 1.0  # type: ignore[union-attr, index]
        # means of the units: w tanh(first pixel + b), with variances far above and far below 0.01, and 0
        last.weight[0, 0], last.weight[1, 0] = 1.0, 0.01  # type: ignore[union-attr, index]
    protocol = LikelihoodProtocol("set", "test", images(200), 64, 0)
    with model.evaluation():
        variances = model.encode(to_float(images(200).images)).var(0)
        (active,) = [each for each in protocol.measure(model) if each.name == "active_units"]
    assert variances[0] > 0.05
    assert 0 < variances[1] < 0.0001
    assert active.value == 1
    assert not active.ranked


TINY = (
    "experiment_name=tiny",
    "run_name=run",
    "logger=none",
    "trainer=cpu",
    "trainer.max_steps=4",
    "callbacks=density",
    "callbacks.likelihood.num_images=60",
    "callbacks.interpolation=null",
    "data.image_size=16",
    "model=vae_mlp",
    "model.encoder.hidden=[12]",
    "model.decoder.hidden=[12]",
    "model.importance_samples=2",
    "metrics=none",
)


def test_a_run_records_its_likelihood_and_evaluate_finds_the_same(tmp_path: Path) -> None:
    record = train(compose_config([*TINY, "callbacks.likelihood.every_n_images=64"]))
    assert record is not None
    names = ["bits_per_dim", "nll", "reconstruction_error", "active_units"]
    assert [each["name"] for each in record["scores"]] == names
    run = tmp_path / "runs" / "tiny" / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["images_seen"] for line in lines] == [64, 128]
    boards = {board.score: board for board in build_boards([FoundRun(record, "run")])}
    assert set(boards) == set(names[:3])
    assert (run / "reconstructions" / "000000128.png").is_file()

    options = ["metrics=random", "metrics.num_samples=32", "metrics.block_size=32"]
    found = score(ScoringJob(run, overrides=options))
    assert [each for each in found if each["name"] in names] == record["scores"]
    assert len(found) > len(names)
    few = score(ScoringJob(run, overrides=options, metrics=["frechet_distance"]))
    assert [each["name"] for each in few] == ["fd_random"]


def test_a_pixel_model_is_scored_exactly() -> None:
    record = train(
        tiny_config(
            "gated_pixelcnn",
            "experiment_name=tiny",
            "callbacks=density",
            "callbacks.likelihood.num_images=30",
            "callbacks.samples=null",
        )
    )
    assert record is not None
    bits, nats = record["scores"]
    assert bits["protocol"]["metric"]["exact"] is True
    assert 0 < bits["value"] < math.log2(17) + 1
    assert nats["value"] == pytest.approx(64 * math.log(2) * bits["value"])


def test_models_without_either_are_refused(train_here: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(UserError, match=r"GAN has no likelihood and does not reconstruct: set callbacks\.likelihood"):
        train_here("callbacks=density", "trainer.max_steps=1")
    with pytest.raises(UserError, match="block_size must be at least 1"):
        train(compose_config([*TINY, "callbacks.likelihood.block_size=0"]))
