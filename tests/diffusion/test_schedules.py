from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from lightning_gen.diffusion.samplers.ancestral import posterior
from lightning_gen.diffusion.schedules import Level, VariancePreserving, build_schedule
from lightning_gen.errors import UserError

NAMES = ["linear", "cosine", "sigmoid", "edm", "straight"]
CHAINS = ["linear", "cosine", "sigmoid"]


def float64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def chain(name: str, steps: int) -> VariancePreserving:
    schedule = build_schedule({"name": name, "num_steps": steps})
    assert isinstance(schedule, VariancePreserving)
    return schedule


@pytest.mark.parametrize("steps", [100, 1000])
def test_linear_betas_and_their_products_are_those_of_ddpm(steps: int) -> None:
    first, last = Fraction(1, 10000) * 1000 / steps, Fraction(2, 100) * 1000 / steps
    schedule = chain("linear", steps)
    for step in (1, 2, steps // 3, steps):
        product = math.prod(1 - first - (last - first) * i / (steps - 1) for i in map(Fraction, range(step)))
        time = float64(step / steps)
        assert schedule.alpha(time).item() == pytest.approx(math.sqrt(product), abs=1e-12)
        assert schedule.sigma(time).item() == pytest.approx(math.sqrt(1 - product), abs=1e-12)


def test_square_roots_of_betas_rise_linearly_where_asked() -> None:
    schedule = build_schedule({"name": "linear", "first": 0.0015, "last": 0.0195, "square_root": True})
    assert isinstance(schedule, VariancePreserving)
    roots = schedule.betas.sqrt()
    torch.testing.assert_close(roots[[0, -1]], float64(0.0015, 0.0195).sqrt(), rtol=0, atol=1e-15)
    torch.testing.assert_close(roots.diff(), roots.diff().mean().expand(999), rtol=0, atol=1e-15)


def test_cosine_is_that_of_nichol_and_dhariwal() -> None:
    def share(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    schedule = chain("cosine", 4000)
    # Up to the last step, whose beta is bounded.
    times = [1 / 4000, 0.1, 0.5, 0.9, 3999 / 4000]
    expected = float64(*(math.sqrt(share(time) / share(0)) for time in times))
    torch.testing.assert_close(schedule.alpha(float64(*times)), expected, rtol=0, atol=1e-12)
    assert schedule.betas[-1] == schedule.betas.max() == 0.999


def test_sigmoid_falls_as_a_sigmoid() -> None:
    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    times = [0.001, 0.25, 0.5, 0.999]
    expected = float64(*((sigmoid(3) - sigmoid(6 * t - 3)) / (sigmoid(3) - sigmoid(-3)) for t in times))
    torch.testing.assert_close(chain("sigmoid", 1000).alpha(float64(*times)).square(), expected, rtol=0, atol=1e-12)
    assert chain("sigmoid", 1000).alpha(float64(0.5)).square().item() == pytest.approx(0.5, abs=1e-12)


def test_edm_levels_are_the_papers() -> None:
    levels = build_schedule({"name": "edm"}).levels(18)
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    assert [level.sigma for level in levels] == pytest.approx([*expected, 0.0], rel=1e-12)
    assert {level.alpha for level in levels} == {1.0}
    assert [level.noise_level for level in levels[:-1]] == pytest.approx(
        [250 * math.log(s) for s in expected], abs=1e-9
    )
    assert [level.sigma for level in build_schedule({"name": "edm"}).levels(1)] == pytest.approx([80.0, 0.0])


def test_straight_levels_are_evenly_spaced() -> None:
    levels = build_schedule({"name": "straight"}).levels(4)
    assert levels == [Level(i / 4, 1 - i / 4, 1000 - 250 * i) for i in range(5)]


@pytest.mark.parametrize("name", CHAINS)
def test_posteriors_are_those_of_equations_6_and_7_of_ddpm(name: str) -> None:
    schedule = chain(name, 50)
    betas = schedule.betas
    products = torch.cumprod(1 - betas, 0)
    levels = schedule.levels(50)[::-1]
    for t in range(1, 51):
        beta, product = betas[t - 1].item(), products[t - 1].item()
        before = products[t - 2].item() if t > 1 else 1.0
        law = posterior(levels[t], levels[t - 1])
        assert law.of_image == pytest.approx(math.sqrt(before) * beta / (1 - product), abs=1e-12)
        assert law.of_noisy == pytest.approx(math.sqrt(1 - beta) * (1 - before) / (1 - product), abs=1e-12)
        assert law.variance == pytest.approx((1 - before) / (1 - product) * beta, abs=1e-12)
        assert law.step_variance == pytest.approx(beta, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_posteriors_over_several_steps_are_those_of_gaussians(name: str) -> None:
    above, _, below = build_schedule({"name": name}).levels(10)[2:5]
    # Of x_s = a_s x + s_s e and x_t = k x_s + n with x known: the covariance of both over the variance of x_t.
    law = posterior(above, below)
    covariance = above.alpha / below.alpha * below.sigma**2
    assert law.of_noisy == pytest.approx(covariance / above.sigma**2, rel=1e-9)
    assert law.of_image == pytest.approx(below.alpha - covariance / above.sigma**2 * above.alpha, rel=1e-9)
    assert law.variance == pytest.approx(below.sigma**2 - covariance**2 / above.sigma**2, rel=1e-9)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("steps", [1, 7, 999, 1000])
def test_fewer_steps_are_distinct_times_of_the_chain_from_its_end_to_an_image(name: str, steps: int) -> None:
    schedule = chain(name, 1000)
    levels = schedule.levels(steps)
    indices = [level.noise_level for level in levels]
    assert all(index == round(index) for index in indices)
    assert len(set(indices)) == steps + 1
    assert indices == sorted(indices, reverse=True)
    assert levels[0] == Level(*(part.item() for part in schedule.at(float64(1.0))))
    assert levels[-1] == Level(1.0, 0.0, 0.0)


@pytest.mark.parametrize("name", CHAINS)
def test_times_of_levels_are_found_again(name: str) -> None:
    schedule = chain(name, 40)
    times = torch.cat([torch.linspace(0, 1, 41, dtype=torch.float64), float64(0.001, 0.333, 0.9876)])
    ratios = schedule.sigma(times) / schedule.alpha(times)
    torch.testing.assert_close(schedule.time_of(ratios), times, rtol=0, atol=1e-9)
    assert schedule.time_of(float64(math.inf)).item() == 1


@pytest.mark.parametrize("name", ["edm", "straight"])
def test_times_of_levels_are_found_again_in_continuous_time(name: str) -> None:
    schedule = build_schedule({"name": name})
    times = float64(0.001, 0.333, 0.9876)
    ratios = schedule.sigma(times) / schedule.alpha(times)
    torch.testing.assert_close(schedule.time_of(ratios), times, rtol=0, atol=1e-12)
    level = schedule.level_of(0.7)
    assert level.sigma / level.alpha == pytest.approx(0.7, rel=1e-12)


@pytest.mark.parametrize("name", CHAINS)
def test_between_the_steps_of_a_chain_the_logarithm_of_alpha_is_interpolated(name: str) -> None:
    schedule = chain(name, 40)
    low, middle, high = schedule.alpha(float64(0.3, 0.3125, 0.325)).log()
    assert middle.item() == pytest.approx((low + high).item() / 2, abs=1e-12)
    variance = schedule.alpha(float64(0.3125)).square() + schedule.sigma(float64(0.3125)).square()
    assert variance.item() == pytest.approx(1, abs=1e-12)


def test_the_lowest_level_of_a_chain_is_its_first_step() -> None:
    schedule = chain("linear", 1000)
    assert schedule.smallest_ratio == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)), rel=1e-12)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "linaer"}, "noise schedule 'linaer'.* Did you mean 'linear'"),
        ({"name": "cosine", "betas": 3}, "model.schedule: cosine has no option betas"),
        ({"name": "linear", "num_steps": 20}, "raise model.schedule.num_steps"),
        ({"name": "cosine", "num_steps": 0}, "model.schedule.num_steps"),
        ({"name": "edm", "sigma_min": 100}, "below model.schedule.sigma_max"),
    ],
)
def test_mistakes_name_the_key(spec: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_schedule(spec)


def test_more_steps_than_the_chain_has_are_refused() -> None:
    with pytest.raises(UserError, match=r"101 steps are more than the 100 .* model.sampler.steps"):
        chain("linear", 100).levels(101)


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid", "edm", "straight"])
@pytest.mark.parametrize("start", [0.25, 0.8, 1.0])
def test_levels_may_begin_at_an_inner_time(name: str, start: float) -> None:
    schedule = build_schedule({"name": name})
    levels = schedule.levels(20, start)
    assert len(levels) == 21
    expected = schedule.at(torch.tensor([start], dtype=torch.float64))
    assert levels[0] == pytest.approx([part.item() for part in expected], rel=1e-12)
    assert levels[-1][:2] == (1.0, 0.0)
    ratios = [level.sigma / level.alpha if level.alpha else math.inf for level in levels]
    assert ratios == sorted(ratios, reverse=True)
    assert schedule.levels(20, 1.0) == schedule.levels(20)


def test_a_part_of_a_chain_has_a_part_of_its_steps() -> None:
    schedule = build_schedule({"name": "linear", "num_steps": 50})
    assert schedule.levels(20, 0.4) == schedule.levels(50)[30:]
    with pytest.raises(UserError, match="21 steps are more than the 20 of the schedule"):
        schedule.levels(21, 0.4)
