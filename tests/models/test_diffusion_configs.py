"""The papers' diffusion models and the experiments with them, from their configs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_gen.configuration import compose_config, config_dir
from lightning_gen.diffusion.coupling import OptimalTransport
from lightning_gen.diffusion.likelihood import FlowLikelihood, VariationalBound
from lightning_gen.diffusion.schedules import EDM, Linear, Straight
from lightning_gen.diffusion.targets import EDMTarget, NoiseTarget, VelocityTarget
from lightning_gen.diffusion.times import LogNormal, Uniform
from lightning_gen.diffusion.weights import EDMWeight, Simple
from lightning_gen.models.diffusion import Diffusion
from lightning_gen.models.schedules import LinearWarmUp
from lightning_gen.registry import construct

NAMES = ("ddpm", "edm", "flow_matching", "guided_diffusion", "ot_cfm")
EXPERIMENTS = sorted(
    path.stem for path in (config_dir() / "experiment").glob("*.yaml") if path.stem.rpartition("_")[0] in NAMES
)


def built(*overrides: str, shape: tuple[int, int, int] = (3, 32, 32)) -> Diffusion:
    spec: dict[str, Any] = dict(compose_config(list(overrides))["model"])
    with torch.device("meta"):
        return construct(spec, Diffusion, image_shape=shape, num_classes=10, label_law=[0.1] * 10)


def optimizer_of(model: Diffusion) -> tuple[torch.optim.Optimizer, LinearWarmUp]:
    found: Any = model.configure_optimizers()
    return found[0][0], found[1][0]


def test_ddpm_is_that_of_the_paper() -> None:
    model = built("model=ddpm")
    assert isinstance(model.schedule, Linear)
    assert model.schedule.num_steps == 1000
    assert model.schedule.betas[[0, -1]].tolist() == pytest.approx([1e-4, 0.02])
    assert (type(model.target), type(model.weight), type(model.times)) == (NoiseTarget, Simple, Uniform)
    assert isinstance(model.likelihood, VariationalBound)
    assert model.parameter_counts()["network"] == pytest.approx(35.7e6, rel=0.01)
    assert model.sampler_settings() == {
        **{"sampler": "ddpm", "steps": 1000, "evaluations": 1000, "float64": False, "clip": True}
    }
    optimizer, warm_up = optimizer_of(model)
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["lr"] == 2e-4
    assert (warm_up.warmup_iters, warm_up.total_iters, model.gradient_clip_norm) == (5000, None, 1.0)


def test_edm_is_that_of_the_paper() -> None:
    model = built("model=edm")
    assert isinstance(model.schedule, EDM)
    assert (model.schedule.smallest_ratio, model.schedule.prior_std, model.schedule.rho) == (0.002, 80.0, 7.0)
    assert isinstance(model.target, EDMTarget)
    assert isinstance(model.weight, EDMWeight)
    assert model.target.data_std == model.weight.data_std == 0.5
    assert isinstance(model.times, LogNormal)
    assert (model.times.mean, model.times.std) == (-1.2, 1.2)
    settings = model.sampler_settings()
    assert (settings["sampler"], settings["steps"], settings["evaluations"]) == ("heun", 18, 35)
    assert settings["float64"] is True
    optimizer, warm_up = optimizer_of(model)
    assert optimizer.defaults["lr"] == 1e-3
    assert warm_up.warmup_iters * 512 == pytest.approx(10e6, rel=1e-4)


@pytest.mark.parametrize(("name", "transport"), [("flow_matching", False), ("ot_cfm", True)])
def test_flow_matching_is_that_of_the_papers(name: str, transport: bool) -> None:
    model = built(f"model={name}")
    assert isinstance(model.schedule, Straight)
    assert (type(model.target), type(model.weight), type(model.times)) == (VelocityTarget, Simple, Uniform)
    assert isinstance(model.coupling, OptimalTransport) == transport
    assert isinstance(model.likelihood, FlowLikelihood)
    assert model.sampler.name == "ode"
    assert "steps" not in model.sampler_settings()


def test_ddim_is_ddpm_with_another_sampler() -> None:
    ddpm, ddim = (compose_config([f"model={name}"])["model"] for name in ("ddpm", "ddim"))
    assert ddim["sampler"] == {"name": "ddim", "steps": 50}
    assert {**ddim, "sampler": None} == {**ddpm, "sampler": None}


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=ddpm", "model.schedule.name=cosine", "model.target.name=v", "model.weight.name=min_snr"],
        ["model=ddpm", "model.schedule.name=edm", "model.target.name=edm", "model.times.name=log_normal"],
        ["model=edm", "model.schedule.name=straight", "model.target.name=velocity", "model.coupling.name=independent"],
        ["model=flow_matching", "model.sampler.name=dpm_solver_pp_2m", "model.coupling.name=optimal_transport"],
        ["model=ddim", "+model.schedule.num_steps=100", "+model.sampler.eta=1", "model.likelihood.name=ode"],
    ],
)
def test_parts_are_exchanged_by_their_names(overrides: list[str]) -> None:
    assert built(*overrides).schedule.levels(10)[-1].sigma == 0


def test_experiments_are_there_for_every_size() -> None:
    for name in NAMES:
        sets = {"digits", "mnist"} if name == "guided_diffusion" else {"digits", "mnist", "cifar10"}
        assert {each.rpartition("_")[2] for each in EXPERIMENTS if each.rpartition("_")[0] == name} == sets


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_are_small_where_they_are_for_a_laptop(name: str) -> None:
    shape = {"digits": (1, 32, 32), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}[name.rpartition("_")[2]]
    model = built(f"experiment={name}", shape=shape)
    count = model.parameter_counts()["network"]
    assert count > 30e6 if name.endswith("cifar10") else count < 1e6
    assert (model.guidance_scale != 1) == model.conditional == name.startswith("guided")
