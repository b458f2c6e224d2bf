"""The leaderboard: scores grouped by protocol, so that only comparable ones share a table, and averaged over seeds.

Needs no torch.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_gen.tracking.record_files import FoundRun

INCONCLUSIVE_VARIATION = 0.013
"""Relative standard error taken for a single run without a spread of its own: "The FID Lottery" (arXiv 2606.20536)
calls differences of FID below a coefficient of variation of 1.3% inconclusive."""

GPU_HOURS, CPU_HOURS = "GPU", "CPU core"


@dataclass(frozen=True)
class Run:
    """One run's score on a board.

    Attributes:
        run: ``<experiment>/<run_name>``.
        seed: of the run.
        status: ``completed``, ``interrupted`` or ``failed``.
        value: the score.
        std: its own error bar, or None.
        images_seen: real images that training had consumed when it was scored.
        hours: device-hours of the whole training, see `device_hours`; None where the record does not say.
        hours_of: ``GPU`` or ``CPU core``.
        train_seconds: of the whole training.
        images_per_second: over the whole training, all processes together.
        parameters: over all networks.
        source: run directory, or address of a W&B run.
    """

    run: str
    seed: int
    status: str
    value: float
    std: float | None
    images_seen: int
    hours: float | None
    hours_of: str
    train_seconds: float | None
    images_per_second: float | None
    parameters: int
    source: str


@dataclass
class Entry:
    """The runs of one setting under one protocol: the completed ones together, any other alone.

    Attributes:
        name: the experiment, or ``<experiment>/<run_name>`` of a single run.
        experiment: the experiment.
        model: name of the model's config.
        data: name of the data set.
        settings_digest: of the config without seeds; None for a run whose record lacks it.
        status: of its runs.
        value: mean over seeds; runs of the same seed are averaged first, as they are no independent draws.
        spread: sample standard deviation over seeds; None of one.
        seeds: number of different seeds.
        error: standard error of ``value`` that ties are judged by, see `standard_error`.
        images_seen: mean over the runs, as is ``hours``.
        hours: mean device-hours of a run; None where a record does not say.
        hours_of: ``GPU`` or ``CPU core``.
        parameters: over all networks.
        network_evaluations: of the generating network for one sample.
        runs: the runs, by seed.
        place: among the completed entries, from 1; those of a tie share it. None for other entries.
        tied: whether it shares its place.
    """

    name: str
    experiment: str
    model: str
    data: str
    settings_digest: str | None
    status: str
    value: float
    spread: float | None
    seeds: int
    error: float
    images_seen: int
    hours: float | None
    hours_of: str
    parameters: int
    network_evaluations: int
    runs: list[Run]
    place: int | None = None
    tied: bool = False


@dataclass
class Board:
    """The entries that were scored under one protocol, best first.

    Attributes:
        score: name of the score.
        protocol_hash: of the protocol that all entries share.
        protocol: the protocol itself.
        lower_is_better: the direction.
        entries: completed ones and, without a place, others.
    """

    score: str
    protocol_hash: str
    protocol: dict[str, Any]
    lower_is_better: bool
    entries: list[Entry] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The board as plain values."""
        return asdict(self)


def device_hours(record: Mapping[str, Any]) -> tuple[float | None, str]:
    """Hours of training times devices, and what the devices are.

    ``hardware.processes`` counts the processes of all nodes, so nodes are not multiplied in again. A process computes
    on one GPU, or where ``hardware.device`` is ``cpu`` on ``hardware.threads`` cores.

    Returns:
        (hours or None where the record does not say, ``GPU`` or ``CPU core``).
    """
    hardware = record.get("hardware", {})
    on_cpu = hardware.get("device", "cpu") == "cpu"
    seconds = record.get("train_seconds")
    if seconds is None or "processes" not in hardware or (on_cpu and "threads" not in hardware):
        return None, CPU_HOURS if on_cpu else GPU_HOURS
    devices = hardware["processes"] * (hardware["threads"] if on_cpu else 1)
    return seconds * devices / 3600, CPU_HOURS if on_cpu else GPU_HOURS


def build_boards(found: Iterable[FoundRun]) -> list[Board]:
    """One board for every score and protocol; scores of extractors that rank nothing are left out.

    Boards come by data set, and there in the order in which runs record their scores: the main score first.
    """
    boards: dict[tuple[str, str], Board] = {}
    groups: dict[tuple[str, str], dict[tuple[str, ...], list[tuple[FoundRun, Run]]]] = {}
    order: dict[tuple[str, str], tuple[str, int, str, str]] = {}
    for run in found:
        for position, score in enumerate(run.record["scores"]):
            if not score.get("ranked", True):
                continue
            key = (score["name"], score["protocol_hash"])
            if key not in boards:
                boards[key] = Board(*key, score["protocol"], score.get("lower_is_better", True))
                groups[key] = {}
                order[key] = (run.record["data"], position, *key)
            order[key] = min(order[key], (run.record["data"], position, *key))
            groups[key].setdefault(_setting(run), []).append((run, _run_of(run, score)))
    for key, board in boards.items():
        board.entries = [_entry(members, board) for members in groups[key].values()]
        rank(board)
    return sorted(boards.values(), key=lambda board: order[board.score, board.protocol_hash])


def rank(board: Board) -> None:
    """Sort the entries of a board best first, and give the completed ones their places.

    From the best down, entries that `differ` too little from the best of their group share its place.
    """
    sign = 1 if board.lower_is_better else -1
    board.entries.sort(key=lambda entry: (sign * entry.value, entry.name))
    group: list[Entry] = []
    for number, entry in enumerate((entry for entry in board.entries if entry.status == "completed"), start=1):
        if group and not differ(group[0], entry):
            entry.place = group[0].place
            group[0].tied = entry.tied = True
        else:
            entry.place, entry.tied = number, False
            group = []
        group.append(entry)


def differ(first: Entry, second: Entry) -> bool:
    """Whether two entries are further apart than noise: by more than two standard errors of their difference."""
    return abs(first.value - second.value) > 2 * math.hypot(first.error, second.error)


def standard_error(value: float, spread: float | None, seeds: int, std: float | None) -> float:
    """Standard error of an entry's value.

    Args:
        value: mean over seeds.
        spread: sample standard deviation over seeds, None of one seed.
        seeds: number of seeds.
        std: the score's own error bar, if it has one.

    Returns:
        ``spread / sqrt(seeds)`` where there are two seeds. Else the root of the sum of squares of ``std``, which knows
        nothing of other trainings, and `INCONCLUSIVE_VARIATION` of the value.
    """
    if spread is not None:
        return spread / math.sqrt(seeds)
    return math.hypot(std or 0.0, INCONCLUSIVE_VARIATION * value)


def _setting(run: FoundRun) -> tuple[str, ...]:
    """Runs with equal keys form one entry."""
    record = run.record
    digest = record.get("settings_digest")
    if digest is None or record["status"] != "completed":
        return (run.source,)
    return (record["experiment"], record["model"], record["data"], digest)


def _run_of(found: FoundRun, score: Mapping[str, Any]) -> Run:
    record = found.record
    hours, hours_of = device_hours(record)
    return Run(
        run=f"{record['experiment']}/{record['run_name']}",
        seed=record["seed"],
        status=record["status"],
        value=score["value"],
        std=score["std"],
        images_seen=score["images_seen"],
        hours=hours,
        hours_of=hours_of,
        train_seconds=record.get("train_seconds"),
        images_per_second=record.get("images_per_second"),
        parameters=sum(record.get("parameters", {}).values()),
        source=found.source,
    )


def _entry(members: Sequence[tuple[FoundRun, Run]], board: Board) -> Entry:
    runs = sorted((run for _, run in members), key=lambda run: (run.seed, run.run))
    record = members[0][0].record
    by_seed: dict[int, list[float]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, []).append(run.value)
    values = [math.fsum(each) / len(each) for each in by_seed.values()]
    value = math.fsum(values) / len(values)
    spread = statistics.stdev(values) if len(values) > 1 else None
    hours = [run.hours for run in runs]
    known = [each for each in hours if each is not None]
    evaluations = (board.protocol.get("sampler") or {}).get("network_evaluations")
    return Entry(
        name=runs[0].run if len(runs) == 1 else record["experiment"],
        experiment=record["experiment"],
        model=record["model"],
        data=record["data"],
        settings_digest=record.get("settings_digest"),
        status=record["status"],
        value=value,
        spread=spread,
        seeds=len(values),
        error=standard_error(value, spread, len(values), runs[0].std),
        images_seen=round(sum(run.images_seen for run in runs) / len(runs)),
        hours=math.fsum(known) / len(known) if len(known) == len(hours) else None,
        hours_of=runs[0].hours_of,
        parameters=runs[0].parameters,
        network_evaluations=evaluations if isinstance(evaluations, int) else 1,
        runs=runs,
    )
