"""Scores and samples of a trained diffusion model under other samplers, steps and guidance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lightning_gen.cli import app
from lightning_gen.configuration import compose_config
from lightning_gen.errors import UserError
from lightning_gen.scoring import ScoringJob, score
from lightning_gen.training import train
from tests.models.tiny import tiny_config

SCORING = ("metrics=random", "metrics.num_samples=32", "metrics.block_size=16", "metrics.metrics=[frechet_distance]")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a conditional model with DDIM in 3 steps and a guidance scale of 2."""
    folder = tmp_path_factory.mktemp("runs")
    fast = ("model.optimizer={lr:0.01,schedule:null}", "trainer.max_steps=20")
    config = tiny_config("ddim", "experiment_name=tiny", "run_name=run", f"paths.output_dir={folder}", *fast)
    config["callbacks"] |= {"likelihood": compose_config(["callbacks=density"])["callbacks"]["likelihood"]}
    config["callbacks"]["likelihood"]["num_images"] = 20
    assert train(config) is not None
    return folder / "tiny" / "run"


def call(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--json")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def sampler_of(scores: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (each["protocol"]["sampler"] for each in scores if each["name"] == "fd_random")
    return dict(found)


def test_a_run_is_scored_as_it_was_trained(run: Path) -> None:
    found = call("evaluate", run, *SCORING)["scores"]
    assert {each["name"] for each in found} == {"fd_random", "bits_per_dim", "nll"}
    settings = sampler_of(found)
    assert settings == {
        **{"sampler": "ddim", "steps": 3, "evaluations": 3, "float64": False, "guidance_scale": 2, "clip": True}
    }


def test_steps_and_guidance_are_swept(run: Path) -> None:
    found = call("evaluate", run, *SCORING, "--steps", "2,5", "--guidance-scale", "0,1", "--record")
    assert [(each["steps"], each["guidance_scale"]) for each in found["results"]] == [(2, 0), (2, 1), (5, 0), (5, 1)]
    hashes = set()
    for result in found["results"]:
        settings = sampler_of(result["scores"])
        assert (settings["steps"], settings["guidance_scale"]) == (result["steps"], result["guidance_scale"])
        assert [each["name"] for each in result["scores"]] == ["fd_random"], "the likelihood is not of the samples"
        hashes |= {each["protocol_hash"] for each in result["scores"]}
    assert len(hashes) == 4
    record = json.loads((run / "result.json").read_text())
    assert hashes <= {each["protocol_hash"] for each in record["scores"]}
    assert {each["name"] for each in record["scores"]} > {"bits_per_dim"}


def test_another_sampler_is_scored(run: Path) -> None:
    (heun,) = call("evaluate", run, *SCORING, "--sampler", "heun", "--steps", "4")["scores"]
    settings = heun["protocol"]["sampler"]
    assert (settings["sampler"], settings["steps"], settings["evaluations"]) == ("heun", 4, 7)


def test_lines_say_what_was_swept(run: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(run), *SCORING, "--steps", "2,3"], catch_exceptions=False)
    lines = result.stdout.splitlines()
    assert [lines[0], lines[2]] == ["steps 2", "steps 3"]
    assert lines[1].startswith("fd_random")


def test_samples_are_drawn_with_other_guidance(run: Path, tmp_path: Path) -> None:
    pictures = []
    for scale in (0, 4):
        picture = tmp_path / f"{scale}.png"
        call("sample", run, "-o", picture, "-n", 4, "--guidance-scale", scale, "--sampler", "euler", "--steps", 4)
        pictures.append(picture.read_bytes())
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "x"], "--steps takes numbers"),
        (["--steps", "2000"], "2000 steps are more than the 1000 of the schedule"),
        (["--sampler", "ode", "--steps", "5"], "chooses its own steps"),
        (["--sampler", "heum"], "Unknown sampler 'heum'.* Did you mean 'heun'"),
    ],
)
def test_mistakes_are_named(run: Path, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call("evaluate", run, *SCORING, *options)


def test_other_models_and_images_have_no_sampler(tmp_path: Path) -> None:
    config = tiny_config("gan", "experiment_name=gan", "run_name=run", f"paths.output_dir={tmp_path}")
    assert train(config) is not None
    gan = tmp_path / "gan" / "run"
    with pytest.raises(UserError, match="GAN does not sample in steps: leave --sampler and --steps out"):
        call("evaluate", gan, *SCORING, "--steps", "3")
    with pytest.raises(UserError, match="GAN has no guidance: leave --guidance-scale out"):
        call("sample", gan, "-o", tmp_path / "x.png", "--guidance-scale", "3")
    with pytest.raises(UserError, match="holds images: leave --sampler, --steps and --guidance-scale out"):
        call("evaluate", gan / "samples", "--against", "digits", "--steps", "3")
    assert score(ScoringJob(gan, overrides=list(SCORING)))[0]["name"] == "fd_random"
