from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn

from lightning_gen.callbacks.snapshots import Snapshots
from lightning_gen.errors import UserError
from lightning_gen.models import load_model, read_checkpoint
from lightning_gen.models.averaging import WeightAverage
from lightning_gen.models.gan import GAN
from lightning_gen.models.power_average import (
    PowerFunctionAverage,
    combination,
    exponent_of,
    inner_products,
    width_of,
)
from lightning_gen.models.snapshots import list_snapshots, reconstruct
from lightning_gen.tracking.run_directory import RunDirectory
from tests.models.small import fit, small_gan

EVERY = [width / 100 for width in range(2, 29)]


def profile(time: float, exponent: float, tau: float) -> float:
    return (exponent + 1) * tau**exponent / time ** (exponent + 1) if tau <= time else 0.0


def trained(
    steps: int, folder: Path, *, widths: tuple[float, ...] = (0.05, 0.1), keep: int = 32, period: int = 32
) -> tuple[GAN, RunDirectory]:
    """A GAN of batches of 16 after so many steps, and its run's directory."""
    model = small_gan()
    model.add_average(relative_widths=widths)
    run = RunDirectory(folder)
    trainer = fit(model, steps, Snapshots(run, period, keep))
    trainer.save_checkpoint(folder / "last.ckpt")
    return model, run


@pytest.mark.parametrize("width", EVERY)
def test_the_exponent_of_a_width_gives_that_width_back(width: float) -> None:
    assert width_of(exponent_of(width)) == pytest.approx(width, rel=1e-9)
    assert exponent_of(width) > 0


@pytest.mark.parametrize("exponent", [0.0, 1.0, 6.94, 16.97])
def test_the_width_is_the_standard_deviation_of_the_profile(exponent: float) -> None:
    mean, square = (quad(lambda tau, power=power: tau**power * profile(1, exponent, tau), 0, 1)[0] for power in (1, 2))
    assert width_of(exponent) == pytest.approx(math.sqrt(square - mean**2), rel=1e-6)


def test_the_paper_s_widths_have_its_exponents() -> None:
    # Section 3.1: "EMA length of 10%" is gamma = 6.94, 5% is 16.97.
    assert exponent_of(0.10) == pytest.approx(6.94, abs=0.005)
    assert exponent_of(0.05) == pytest.approx(16.97, abs=0.005)


def test_inner_products_are_the_integrals_of_products() -> None:
    times, exponents = np.array([1.0, 0.6, 0.6, 0.9]), np.array([2.0, 5.0, 0.3, 17.0])
    found = inner_products(times, exponents)
    for a in range(4):
        for b in range(4):
            end = min(times[a], times[b])
            expected, _ = quad(
                lambda tau, a=a, b=b: math.prod(profile(times[n], exponents[n], tau) for n in (a, b)), 0, end
            )
            assert found[a, b] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("batches", [(1,) * 12, (4, 4, 4), (2, 7, 1, 2)])
def test_an_average_is_the_weights_times_their_share_of_the_profile(batches: tuple[int, ...]) -> None:
    followed = nn.Linear(3, 2).double()
    average = PowerFunctionAverage({"g": followed}, [0.05, 0.2])
    seen, history = 0, []
    for number, batch in enumerate(batches):
        nn.init.normal_(followed.weight, generator=torch.Generator().manual_seed(number))
        history.append((seen, seen + batch, followed.weight.detach().clone()))
        seen += batch
        average.update({"g": followed}, batch, seen)
    for width, networks in zip((0.05, 0.2), average.averages, strict=True):
        shares = [quad(partial(profile, seen, exponent_of(width)), *span)[0] for *span, _ in history]
        assert sum(shares) == pytest.approx(1)
        expected = sum(share * weight for share, (*_, weight) in zip(shares, history, strict=True))
        torch.testing.assert_close(networks["g"].weight.detach(), expected, rtol=1e-7, atol=1e-7)
        assert torch.equal(networks["g"].bias, followed.bias)


def test_the_first_width_is_the_one_that_is_evaluated() -> None:
    model = small_gan()
    model.add_average(relative_widths=[0.1, 0.05])
    fit(model, 4)
    average = model.average
    assert isinstance(average, PowerFunctionAverage)
    expected, other = (networks["generator"].state_dict() for networks in average.averages)
    with model.evaluation():
        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.generator.state_dict().items())
    assert not all(torch.equal(tensor, expected[name]) for name, tensor in other.items())


def test_what_is_tracked_is_found_by_itself_and_between_lie_close_combinations() -> None:
    times = [t for t in range(1, 17) for _ in (0, 1)]
    exponents = [exponent_of(0.05), exponent_of(0.1)] * 16
    factors, error = combination(times, exponents, exponents[1])
    np.testing.assert_allclose(factors, [0.0] * 31 + [1.0], atol=1e-6)
    assert error < 1e-6
    tau = np.linspace(0, 16, 20_001)
    each = np.array([tau**g * (g + 1) / t ** (g + 1) * (tau <= t) for t, g in zip(times, exponents, strict=True)])
    for width, bound in ((0.07, 0.005), (0.15, 0.01), (0.2, 0.03)):
        factors, error = combination(times, exponents, exponent_of(width))
        wished = profile(16, exponent_of(width), 1) * tau ** exponent_of(width)
        made = factors @ each
        measured = math.sqrt(np.square(made - wished).sum() / np.square(wished).sum())
        assert error == pytest.approx(measured, rel=0.05)
        assert error < bound


def test_an_average_is_put_together_that_was_not_followed(tmp_path: Path) -> None:
    trained(64, tmp_path)
    wished, _ = trained(64, tmp_path / "other", widths=(0.15,))
    checkpoint = read_checkpoint(tmp_path / "last.ckpt")
    found = reconstruct(checkpoint, tmp_path / "snapshots", 0.15)
    assert found.snapshots == 31, "one every 32 images of 1024, and the checkpoint itself"
    assert found.error < 0.01
    model = load_model(found.checkpoint)
    assert isinstance(model, GAN)
    assert model.images_seen == 1024
    assert model.average is not None
    assert model.average.settings == {"relative_widths": [0.15]}
    tracked = load_model(checkpoint)
    expected = dict(wished.average.networks.named_parameters())  # type: ignore[union-attr]
    short = dict(tracked.average.networks.named_parameters())  # type: ignore[union-attr]
    for name, parameter in model.average.networks.named_parameters():
        distance = (parameter - expected[name]).norm()
        assert distance < 0.02 * (short[name] - expected[name]).norm() + 1e-7, name
    buffers = dict(wished.average.networks.named_buffers())  # type: ignore[union-attr]
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.average.networks.named_buffers())


def test_a_followed_width_comes_back_as_it_is(tmp_path: Path) -> None:
    model, _ = trained(10, tmp_path)
    found = load_model(reconstruct(read_checkpoint(tmp_path / "last.ckpt"), tmp_path / "snapshots", 0.1).checkpoint)
    expected = dict(model.average.averages[1].named_parameters())  # type: ignore[union-attr]
    for name, parameter in found.average.networks.named_parameters():  # type: ignore[union-attr]
        torch.testing.assert_close(parameter, expected[name].detach(), rtol=1e-6, atol=1e-7)


def test_snapshots_stay_few_and_evenly_spaced(tmp_path: Path) -> None:
    for steps, expected in ((16, [64, 128, 192, 256]), (20, [128, 256]), (33, [128, 256, 384, 512])):
        _, run = trained(steps, tmp_path / str(steps), keep=4, period=64)
        assert list(list_snapshots(run.snapshots)) == expected


def test_a_resumed_training_leaves_the_same_averages_and_snapshots(tmp_path: Path) -> None:
    whole, run = trained(12, tmp_path / "whole")
    trained(7, tmp_path / "stopped")
    trained(9, tmp_path / "late")
    for number, path in list_snapshots(tmp_path / "late" / "snapshots").items():
        if number > 7 * 16:  # of a process that was killed after its last checkpoint
            path.rename(tmp_path / "stopped" / "snapshots" / f"{number + 1:012d}.safetensors")
    resumed = small_gan()
    resumed.add_average(relative_widths=(0.05, 0.1))
    other = RunDirectory(tmp_path / "stopped")
    fit(resumed, 12, Snapshots(other, 32), checkpoint=other.path / "last.ckpt")
    expected = whole.state_dict()
    assert any(name.startswith("average.others.0.") for name in expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.state_dict().items())
    files, others = list_snapshots(run.snapshots), list_snapshots(other.snapshots)
    assert list(files) == list(others) == [32, 64, 96, 128, 160, 192]
    assert all(files[time].read_bytes() == others[time].read_bytes() for time in files)


def test_snapshots_are_of_runs_with_such_averages_alone(tmp_path: Path) -> None:
    model = small_gan()
    model.add_average(half_life_images=100)
    assert isinstance(model.average, WeightAverage)
    trainer = fit(model, 4, Snapshots(RunDirectory(tmp_path), 16))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "snapshots").exists()
    with pytest.raises(UserError, match="Only runs with ema=power"):
        reconstruct(read_checkpoint(tmp_path / "last.ckpt"), tmp_path / "snapshots", 0.1)


def test_a_damaged_snapshot_and_one_of_another_run_are_named(tmp_path: Path) -> None:
    trained(4, tmp_path)
    trained(4, tmp_path / "other", widths=(0.05,))
    checkpoint = read_checkpoint(tmp_path / "last.ckpt")
    path = list_snapshots(tmp_path / "snapshots")[32]
    for content, message in (
        ((tmp_path / "other" / "snapshots" / path.name).read_bytes(), "is of another model: remove it"),
        (path.read_bytes()[:100], "Cannot read the snapshot"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            reconstruct(checkpoint, tmp_path / "snapshots", 0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relative_widths": []}, "ema.relative_widths must name a width"),
        ({"relative_widths": [0.3]}, "above 0 and at most 0.28, not 0.3"),
        ({"relative_widths": [0.0]}, "above 0 and at most 0.28, not 0.0"),
        ({"relative_widths": [0.1], "half_life_images": 5}, "ema: .*half_life_images"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        small_gan().add_average(**options)
    with pytest.raises(UserError, match=r"callbacks.snapshots.keep must be at least 2"):
        Snapshots(RunDirectory(tmp_path), 100, keep=1)
