"""Commands that score: runs, checkpoints and folders of images. Torch is imported only once they compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from lightning_gen.commands.shared import (
    Device,
    Force,
    Json,
    Number,
    SamplerName,
    check_free,
    parse_numbers,
    print_json,
    report,
    say,
    write,
)
from lightning_gen.errors import UserError

if TYPE_CHECKING:
    from lightning_gen.scoring import Progress as Report
    from lightning_gen.scoring import ScoringJob

app = typer.Typer()

SCALE = "--guidance-scale"

Metrics = Annotated[
    str | None, typer.Option(help="Names with commas: fid,kid or frechet_distance,recall; docs/scoring.md lists them.")
]
Extractor = Annotated[str | None, typer.Option(help="Feature extractor: inception, inception_clean, mnist, ...")]
Weights = Annotated[str | None, typer.Option(help="The extractor's weight file.")]
Processes = Annotated[int, typer.Option(help="Processes that share the work; the scores do not depend on it.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value changes of the config: metrics=NAME, paths.data_dir=FOLDER, ...")
]
NumSamples = Annotated[int | None, typer.Option("--num-samples", "-n", help="How many are scored.", min=2)]


@app.command()
def evaluate(
    target: Annotated[
        Path, typer.Argument(help="A run, a checkpoint, or a folder or archive of images.", show_default=False)
    ],
    overrides: Overrides = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="A data set, a folder or archive of images, or .npz statistics.", show_default="the run's set"
        ),
    ] = None,
    metrics: Metrics = None,
    num_samples: NumSamples = None,
    extractor: Extractor = None,
    weights: Weights = None,
    sampler: SamplerName = None,
    steps: Annotated[str | None, typer.Option(help="Of the sampler; several with commas are scored in turn.")] = None,
    guidance_scale: Annotated[
        str | None, typer.Option(help="Of a model with labels, 1 for none; several with commas are scored in turn.")
    ] = None,
    real: Annotated[
        bool, typer.Option("--real", help="Score real training images instead: what a perfect model would get.")
    ] = False,
    nproc: Processes = 1,
    device: Device = "auto",
    record: Annotated[bool, typer.Option(help="Add the scores to the run's result.json.")] = False,
    as_json: Json = False,
) -> None:
    """Score a run, a checkpoint or images, e.g. `evaluate RUN --metrics fid,kid -n 5000`."""
    from lightning_gen.evaluation import Sampling
    from lightning_gen.scoring import ScoringJob
    from lightning_gen.tracking.record import read_record, write_record
    from lightning_gen.tracking.run_directory import open_run

    if real and record:
        raise UserError("--real scores are not the run's: leave --record out")
    record_file = open_run(target)[0].record_file if record else None
    known = read_record(record_file) if record_file else {}
    job = ScoringJob(
        target, against, overrides or [], _names(metrics), num_samples, extractor, weights, device, real=real
    )
    results: list[dict[str, Any]] = []
    for each_steps, each_scale in product(_several(steps, int, "--steps"), _several(guidance_scale, float, SCALE)):
        scores = _score(replace(job, sampling=Sampling(sampler, each_steps, each_scale)), nproc)
        results.append({"steps": each_steps, "guidance_scale": each_scale, "scores": scores})
        if record_file:
            new = {(score["name"], score["protocol_hash"]) for score in scores}
            kept = [score for score in known["scores"] if (score["name"], score["protocol_hash"]) not in new]
            known = {**known, "scores": kept + scores}
            write_record(record_file, known)
    if len(results) == 1:
        _report(as_json, {"path": str(target)}, results[0]["scores"])
    elif as_json:
        print_json({"path": str(target), "results": results})
    else:
        for result in results:
            chosen = {name: result[name] for name in ("steps", "guidance_scale") if result[name] is not None}
            print(", ".join(f"{name} {value}" for name, value in chosen.items()))
            _report(False, {}, result["scores"])


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A folder or archive of images that are scored.", show_default=False)],
    second: Annotated[str, typer.Argument(help="The images they are compared with.", show_default=False)],
    overrides: Overrides = None,
    metrics: Metrics = "frechet_distance,inception_score,kernel_distance",
    num_samples: NumSamples = None,
    extractor: Extractor = "inception",
    weights: Weights = None,
    nproc: Processes = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score the images of one folder against those of another, e.g. `compare A B --metrics fid,kid`."""
    from lightning_gen.scoring import ScoringJob

    job = ScoringJob(first, second, overrides or [], _names(metrics), num_samples, extractor, weights, device)
    _report(as_json, {"first": str(first), "second": second}, _score(job, nproc))


@app.command()
def statistics(
    source: Annotated[str, typer.Argument(help="A data set, or a folder or archive of images.", show_default=False)],
    overrides: Overrides = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="An .npz file as pytorch-fid's, or .pt as in torch-fidelity's cache."),
    ] = Path("statistics.npz"),
    extractor: Extractor = None,
    weights: Weights = None,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Save mean and covariance of the features of a set, for `evaluate --against FILE` and for other tools."""
    from lightning_gen.metrics.statistics_files import is_statistics_file, write_statistics
    from lightning_gen.scoring import statistics_of

    if not is_statistics_file(output):
        raise UserError(f"--output must be an .npz or .pt file, not {output}")
    check_free(output, force)
    found = statistics_of(source, overrides or [], extractor, weights, device)
    write(output, lambda path: write_statistics(path, found))
    report(as_json, {"output": str(output), "num_images": found.n, "num_features": len(found.mean)})


def _several(text: str | None, kind: type[Number], option: str) -> Sequence[Number | None]:
    """The numbers of an option, or None where it is left out."""
    return [None] if text is None else parse_numbers(text, kind, option)


def _names(metrics: str | None) -> list[str]:
    return [name.strip() for name in (metrics or "").split(",") if name.strip()]


def _score(job: ScoringJob, nproc: int) -> list[dict[str, Any]]:
    from lightning_gen.scoring import score

    with _progress() as progress:
        scores = score(job, nproc, progress)
    formats = {name for score in scores for name in score["protocol"].get("samples", {}).get("formats", [])}
    if "JPEG" in formats:
        say("note: the images are JPEG files, whose compression moves scores; their protocol says so")
    return scores


@contextmanager
def _progress() -> Iterator[Report]:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("scoring", total=None)
        yield lambda done, number: bar.update(task, completed=done, total=number)


def _report(as_json: bool, subject: dict[str, Any], scores: list[dict[str, Any]]) -> None:
    """Print each score's value under its name, and all of each as ``scores``; or a line each."""
    from lightning_gen.tracking.record import format_score

    if as_json:
        print_json({**subject, **{score["name"]: score["value"] for score in scores}, "scores": scores})
        return
    for score in scores:
        print(f"{score['name']}  {format_score(score, digits=6)}  (protocol {score['protocol_hash']})")
