"""``lightning-gen latents ...``: what the latents of a model mean."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightning_gen.commands.shared import (
    Device,
    Force,
    Json,
    Overrides,
    Picture,
    RunOrCheckpoint,
    Seed,
    check_picture,
    load_classifier,
    parse_numbers,
    print_json,
    report,
    write_picture,
)
from lightning_gen.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lightning_gen.models import GenerativeModel
    from lightning_gen.models.latents import Code

app = typer.Typer(help="Look at what the latents of a model mean.", no_args_is_help=True)

Rows = Annotated[int, typer.Option(help="Latents, one a row.", min=1)]
PerClass = Annotated[int, typer.Option(help="Latents that a class's mean is of.", min=1)]


@app.command()
def traverse(
    run: RunOrCheckpoint,
    output: Picture,
    units: Annotated[
        str | None, typer.Option(help="Which units, as 0,1,2.", show_default="all codes, or the first 6 units")
    ] = None,
    span: Annotated[
        float | None, typer.Option(help="From -SPAN to SPAN.", show_default="3, or the prior's own range")
    ] = None,
    steps: Annotated[int, typer.Option(help="Images in a row.", min=2)] = 9,
    rows: Rows = 4,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Vary one unit of the latents at a time, or one code: every category, or -2 to 2 of a continuous one."""
    import torch

    from lightning_gen.evaluation import load_trained
    from lightning_gen.models.capabilities import HasCodes, Latents
    from lightning_gen.seeds import make_rng
    from lightning_gen.tools.latents import decode, reach, traverse_code, traverse_unit
    from lightning_gen.tools.sheets import Panel, sheet

    check_picture(output, force)
    trained = load_trained(run, device=device)
    model = trained.model
    if not isinstance(model, Latents):
        raise UserError(f"{type(model).__name__} has no latents to traverse")
    codes: list[Code] = list(model.codes) if isinstance(model, HasCodes) else []
    rng = make_rng("traverse", seed)
    with model.evaluation():
        latents = model.sample_latents(rows, generator=rng)
        labels = _draw_labels(model, rows, rng)
        walks: list[tuple[str, Tensor]] = []
        if codes and units is None:
            walks = [
                (_describe(number, code), traverse_code(latents, code, steps)) for number, code in enumerate(codes)
            ]
        else:
            width = latents.shape[1]
            chosen = list(range(min(6, width))) if units is None else parse_numbers(units, int, "--units")
            if not all(0 <= unit < width for unit in chosen):
                raise UserError(f"--units go from 0 to {width - 1}, not {units}")
            bound = span if span is not None else reach(model, make_rng("reach", seed))
            values = torch.linspace(-bound, bound, steps)
            walks = [
                (f"unit {unit}, from {-bound:.2g} to {bound:.2g}", traverse_unit(latents, unit, values))
                for unit in chosen
            ]
        panels = []
        for caption, walk in walks:
            columns = walk.shape[1]
            spread = None if labels is None else labels.repeat_interleave(columns)
            panels.append(Panel(caption, decode(model, walk.flatten(0, 1), spread), columns))
    write_picture(output, sheet([panels[first : first + 2] for first in range(0, len(panels), 2)]))
    blocks = [caption for caption, _ in walks]
    report(as_json, {"output": str(output), "blocks": blocks, "rows": rows, "seed": seed})


@app.command()
def arithmetic(
    run: RunOrCheckpoint,
    output: Picture,
    a: Annotated[str, typer.Option("--a", help="A class.", show_default=False)],
    b: Annotated[str, typer.Option("--b", help="The class to take away.", show_default=False)],
    c: Annotated[str, typer.Option("--c", help="The class to add.", show_default=False)],
    overrides: Overrides = None,
    per_class: PerClass = 3,
    noise: Annotated[float, typer.Option(help="Of the 8 variations of the result: U[-NOISE, NOISE].")] = 0.25,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Decode z(a) - z(b) + z(c) of the mean latents of three classes (Radford et al. 2016, figure 7)."""
    import torch

    from lightning_gen.evaluation import load_data, load_trained
    from lightning_gen.models.capabilities import Latents
    from lightning_gen.seeds import make_rng
    from lightning_gen.tools.latents import around, decode, latents_by_class
    from lightning_gen.tools.sheets import Panel, sheet

    check_picture(output, force)
    trained = load_trained(run, overrides or [], device)
    model = trained.model
    if not isinstance(model, Latents):
        raise UserError(f"{type(model).__name__} has no latents to add")
    if model.label_law is not None:
        raise UserError(
            "The model is conditional: its labels decide the class, not its latents: use `latents class-means`"
        )
    classifier = load_classifier(trained, load_data(trained))
    names = [a, b, c]
    labels = [classifier.index(name) for name in names]
    rng = make_rng("arithmetic", seed)
    with model.evaluation():
        found = latents_by_class(model, classifier, labels, per_class, rng)
        means = torch.stack([found[label].mean for label in labels])
        mean_images = decode(model, means)
        results = decode(model, around(means[0] - means[1] + means[2], noise, rng))
    rows = []
    for name, label, mean_image in zip(names, labels, mean_images, strict=True):
        rows.append([Panel(f"{name}: samples", found[label].images[:3], 3), Panel("mean", mean_image[None])])
    rows.append([Panel(f"{a} - {b} + {c} (middle) and noise around it", results, 3)])
    write_picture(output, sheet(rows))
    seen = [classifier.class_names[label] for label in classifier.classify(torch.cat([mean_images, results[4:5]]))]
    result = {
        "output": str(output),
        "classes": names,
        "per_class": per_class,
        "means_look_like": seen[:3],
        "result_looks_like": seen[3],
        "classifier_accuracy": classifier.accuracy,
        "seed": seed,
    }
    report(as_json, result)


@app.command("class-means")
def class_means(
    run: RunOrCheckpoint,
    output: Picture,
    overrides: Overrides = None,
    per_class: PerClass = 3,
    steps: Annotated[int, typer.Option(help="Images in a row.", min=2)] = 10,
    rows: Annotated[int, typer.Option(help="Latents, of a conditional model.", min=1)] = 8,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Walk from the mean latent of each class to that of the next; of a conditional model switch the labels."""
    import torch

    from lightning_gen.callbacks.pictures import slerp
    from lightning_gen.evaluation import load_data, load_trained
    from lightning_gen.models.capabilities import Latents
    from lightning_gen.seeds import make_rng
    from lightning_gen.tools.latents import decode, latents_by_class
    from lightning_gen.tools.sheets import Panel, sheet

    check_picture(output, force)
    trained = load_trained(run, overrides or [], device)
    model = trained.model
    if not isinstance(model, Latents):
        raise UserError(f"{type(model).__name__} has no latents to walk between")
    data = load_data(trained)
    names = list(data.class_names)
    rng = make_rng("class means", seed)
    law = model.label_law
    classifier = None if law is not None else load_classifier(trained, data)
    with model.evaluation():
        if classifier is None:
            assert law is not None
            number = len(law)
            latents = model.sample_latents(rows, generator=rng).repeat_interleave(number, 0)
            images = decode(model, latents, torch.arange(number, device=latents.device).repeat(rows))
            panel = Panel("a latent a row, a class a column: " + ", ".join(names), images, number)
        else:
            found = latents_by_class(model, classifier, range(len(names)), per_class, rng)
            means = torch.stack([found[label].mean for label in range(len(names))])
            walks = slerp(means[:-1], means[1:], torch.linspace(0, 1, steps)).transpose(0, 1)
            captions = [f"{first} to {second}" for first, second in pairwise(names)]
            panel = Panel("between the means of classes", decode(model, walks.flatten(0, 1)), steps, captions)
    write_picture(output, sheet([[panel]]))
    report(as_json, {"output": str(output), "classes": names, "conditional": law is not None, "seed": seed})


@app.command()
def truncation(
    run: RunOrCheckpoint,
    output: Picture,
    overrides: Overrides = None,
    values: Annotated[str, typer.Option(help="Bounds of the latents; inf for none.")] = "0.1,0.3,0.5,0.7,1.0",
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", help="In each grid.", min=1)] = 16,
    score: Annotated[bool, typer.Option("--score", help="Also score each under the run's protocol.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Sample from truncated latents (Brock et al. 2019), e.g. `--score 'metrics.metrics=[frechet_distance]'`."""
    from lightning_gen.callbacks.scores import evaluate_model
    from lightning_gen.evaluation import load_data, load_evaluator, load_trained
    from lightning_gen.images import to_uint8
    from lightning_gen.models.capabilities import Truncates
    from lightning_gen.seeds import make_rng
    from lightning_gen.tools.sheets import Panel, sheet

    check_picture(output, force)
    bounds = [None if math.isinf(value) else value for value in parse_numbers(values, float, "--values")]
    trained = load_trained(run, overrides or [], device)
    model = trained.model
    if not isinstance(model, Truncates):
        raise UserError(f"{type(model).__name__} has no latents to truncate")
    evaluator = load_evaluator(trained, load_data(trained)) if score else None
    panels, results = [], []
    for bound in bounds:
        model.truncation = bound
        with model.evaluation():
            images = to_uint8(model.sample(num_samples, generator=make_rng("truncation", seed))).cpu()
            scores = evaluate_model(evaluator, model) if evaluator else []
        results.append({"truncation": bound, "scores": [found.to_json() for found in scores]})
        caption = "no truncation" if bound is None else f"truncated at {bound:g}"
        panels.append(Panel(caption, images))
    write_picture(output, sheet([panels]))
    if as_json:
        print_json({"output": str(output), "results": results, "num_samples": num_samples, "seed": seed})
        return
    if score:
        _print_scores(results)
    print(output)


def _print_scores(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from lightning_gen.tracking.record import format_score

    table = Table("truncation", *(score["name"] for score in results[0]["scores"]))
    for result in results:
        bound = result["truncation"]
        table.add_row("none" if bound is None else f"{bound:g}", *(format_score(score) for score in result["scores"]))
    Console().print(table)


def _draw_labels(model: GenerativeModel, number: int, rng: torch.Generator) -> Tensor | None:
    return None if model.label_law is None else model.draw_labels(number, generator=rng)


def _describe(number: int, code: Code) -> str:
    size = code.columns.stop - code.columns.start
    return f"code {number}: " + (f"{size} categories" if code.kind == "categorical" else "from -2 to 2")
