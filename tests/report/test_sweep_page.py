"""The page of a sweep: its charts lie where the numbers say, and what others wrote stays text."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lightning_gen.report.sweep_page import sweep_page


def trial(number: int, score: float | None, state: str = "completed", **values: Any) -> dict[str, Any]:
    facts = {"number": number, "state": state, "score": score, "spread": None, "values": values, "runs": {}}
    return {**facts, "error": "it <b>broke</b>" if state == "failed" else None, "seconds": 1.0}


def summary(*trials: dict[str, Any], **changes: Any) -> dict[str, Any]:
    completed = sorted((each for each in trials if each["state"] == "completed"), key=lambda each: each["score"])
    states = ("completed", "pruned", "failed", "running", "waiting")
    return {
        "study": "mine-1234",
        "method": "bayes",
        "score": "fd_digits",
        "goal": "minimize",
        "seeds": None,
        "parameters": ["lr", "loss"],
        "logarithmic": ["lr"],
        "counts": {state: sum(each["state"] == state for each in trials) for state in states},
        "best": completed[0]["number"] if completed else None,
        "ranking": [each["number"] for each in completed],
        "importances": {},
        "trials": list(trials),
        **changes,
    }


TRIALS = (
    trial(0, 30.0, lr=0.01, loss="hinge"),
    trial(1, 10.0, lr=0.1, loss="wasserstein"),
    trial(2, 20.0, lr=1.0, loss="hinge"),
    trial(3, 40.0, "pruned", lr=0.5, loss="hinge"),
    trial(4, None, "failed", lr=0.5, loss="<script>"),
)


def figure(page: str, title: str) -> str:
    found = re.search(rf"<figcaption>{title}</figcaption>.*?</figure>", page)
    assert found is not None
    return found[0]


def dots(text: str) -> dict[int, tuple[float, float]]:
    pattern = r'cx="([\d.]+)" cy="([\d.]+)" r="4"><title>trial (\d+)'
    return {int(number): (float(x), float(y)) for x, y, number in re.findall(pattern, text)}


def test_dots_lie_at_their_values() -> None:
    places = dots(figure(sweep_page(summary(*TRIALS)), "lr"))
    assert sorted(places) == [0, 1, 2, 3]
    (x0, y0), (x1, y1), (x2, y2), (_, y3) = (places[number] for number in range(4))
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)  # powers of ten at equal steps
    assert y1 - y2 == pytest.approx(y2 - y0, abs=0.2)
    assert y0 - y3 == pytest.approx(y2 - y0, abs=0.2)
    assert y1 > y2 > y0 > y3


def test_the_line_of_the_best_score_only_improves() -> None:
    page = sweep_page(summary(*TRIALS))
    places = dots(figure(page, "best score so far, by trial"))
    line = re.search(r'class="line k0" d="M([\d.]+) ([\d.]+)H([\d.]+)V([\d.]+)H([\d.]+)H', page)
    assert line is not None
    assert tuple(map(float, line.groups())) == (*places[0], *places[1], places[2][0])
    assert f'class="trial best" cx="{places[1][0]:.1f}"' in page
    higher = sweep_page(summary(*TRIALS, goal="maximize", best=0, ranking=[0, 2, 1]))
    assert re.search(r'class="line k0" d="M([\d.]+) ([\d.]+)H([\d.]+)H([\d.]+)H([\d.]+)"', higher)


def test_choices_stand_side_by_side() -> None:
    places = dots(figure(sweep_page(summary(*TRIALS)), "loss"))
    assert places[0][0] == places[2][0] == places[3][0] < places[1][0]


def test_few_numbers_stand_side_by_side_in_their_order() -> None:
    trials = [trial(number, 1.0 + number, width=width) for number, width in enumerate([8, 16, 100, 8, 16, 100])]
    places = dots(figure(sweep_page(summary(*trials, parameters=["width"])), "width"))
    assert places[0][0] == places[3][0]
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.2)
    assert places[0][0] < places[1][0]


def test_importances_are_bars_of_their_share() -> None:
    page = sweep_page(summary(*TRIALS, importances={"lr": 0.75, "loss": 0.25}))
    widths = [float(width) for width in re.findall(r'<rect class="f0" x="0" y="\d+" width="([\d.]+)"', page)]
    assert widths[0] == pytest.approx(3 * widths[1], rel=1e-3)
    assert "75%" in page


def test_the_table_ranks_trials_and_text_stays_text() -> None:
    page = sweep_page(summary(*TRIALS))
    rows = re.findall(r'<tr class="(\w+)"><td>(\d*)</td><td>(\d+)</td>', page)
    assert rows == [
        ("completed", "1", "1"),
        ("completed", "2", "2"),
        ("completed", "3", "0"),
        ("pruned", "", "3"),
        ("failed", "", "4"),
    ]
    assert "<script>alert" not in page
    assert "<td>&lt;script&gt;</td>" in page
    assert "it &lt;b&gt;broke&lt;/b&gt;" in page


def test_a_sweep_without_a_score_has_a_page() -> None:
    assert "no trials yet" in sweep_page(summary())
    assert "<svg" not in sweep_page(summary(TRIALS[4]))


def test_a_single_trial_and_equal_scores_have_places() -> None:
    for trials in (TRIALS[:1], [trial(0, 5.0, lr=0.1, loss="a"), trial(1, 5.0, lr=0.1, loss="a")]):
        assert len(dots(figure(sweep_page(summary(*trials)), "lr"))) == len(trials)
