"""Scores of runs, checkpoints and folders of images against sets, folders and files of statistics.

A `ScoringJob` is plain values, so that any number of processes can each be told it: every one opens the same samples
and the same reference, takes its share of the samples, and ends with the same scores.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing.spawn import ProcessRaisedException, spawn

from lightning_gen.callbacks.likelihood import LikelihoodProtocol, likelihood_protocol
from lightning_gen.callbacks.scores import check_samples, evaluate_model
from lightning_gen.callbacks.translated import TranslationScoring
from lightning_gen.configuration import compose_config, compose_data, config_dir
from lightning_gen.data import ImageDataModule
from lightning_gen.data.image_files import ImageFiles, is_image_collection
from lightning_gen.errors import UserError
from lightning_gen.evaluation import Sampling, Trained, load_data, load_trained, pick_device
from lightning_gen.files import write_text
from lightning_gen.metrics.evaluator import Drawn, Evaluator, Source
from lightning_gen.metrics.reference import ReferenceImages
from lightning_gen.metrics.statistics import GaussianStatistics
from lightning_gen.metrics.statistics_files import is_statistics_file, read_statistics, statistics_protocol
from lightning_gen.models.capabilities import Samples, Translates
from lightning_gen.registry import construct
from lightning_gen.seeds import make_rng

MISTAKE = "mistake.txt"
"""In the folder that the processes of a job share: what one of them found wrong."""

AS_TRAINED = Sampling()
"""How the model's config says."""

Progress = Callable[[int, int], None]
"""(samples done, of all)."""


@dataclass(frozen=True)
class ScoringJob:
    """What to score, and how.

    Attributes:
        target: a run directory, a checkpoint, or a folder or archive of images.
        against: name of a data set, a folder or archive of images, or a file of statistics; None for the run's own set.
        overrides: ``key=value`` changes of the run's config; for images ``metrics=NAME`` or keys of that group, and
            ``data.*`` and ``paths.*`` of the set to compare with.
        metrics: names, in the place of the config's.
        num_samples: in the place of the config's; None takes all images of a folder.
        extractor: name, in the place of the config's; that of a trained one too.
        weights: the extractor's weight file.
        device: ``auto``, ``cpu`` or ``cuda``.
        sampling: how a model samples, where that is not to be as in its run.
        real: score real images of the run's training split in the place of samples: what a model that draws from the
            data would get.
    """

    target: Path
    against: str | None = None
    overrides: Sequence[str] = ()
    metrics: Sequence[str] = ()
    num_samples: int | None = None
    extractor: str | None = None
    weights: str | None = None
    device: str = "auto"
    sampling: Sampling = AS_TRAINED
    real: bool = False


def score(
    job: ScoringJob, num_processes: int = 1, progress: Progress = lambda done, number: None
) -> list[dict[str, Any]]:
    """The scores of a job, the same at any number of processes.

    Args:
        job: what to score.
        num_processes: processes that share the work; on GPUs, one each.
        progress: called as samples are done.

    Returns:
        The scores as plain values (see `lightning_gen.metrics.base.Score`).

    Raises:
        UserError: mistakes in the job, or files that are missing or damaged.
    """
    if num_processes < 1:
        raise UserError(f"--nproc must be at least 1, not {num_processes}")
    if num_processes == 1:
        return _score(job, 0, 1, job.device, progress)
    _open(job, "cpu")  # mistakes show here, as one line, and not in every process
    with tempfile.TemporaryDirectory() as folder:
        try:
            spawn(_score_rank, args=(job, num_processes, folder), nprocs=num_processes)
        except ProcessRaisedException as error:
            # Of another process, whose connection broke, when that is seen first.
            mistake = Path(folder, MISTAKE)
            if not mistake.is_file():
                raise
            raise UserError(mistake.read_text(encoding="utf-8")) from error
        result: list[dict[str, Any]] = json.loads(Path(folder, "scores.json").read_text(encoding="utf-8"))
        progress(1, 1)
        return result


def _score_rank(rank: int, job: ScoringJob, world_size: int, folder: str) -> None:
    chosen = pick_device(job.device)
    device = job.device
    if chosen.type == "cuda":
        torch.cuda.set_device(rank)
        device = f"cuda:{rank}"
    torch.set_num_threads(max(1, torch.get_num_threads() // world_size))
    distributed.init_process_group(
        "nccl" if chosen.type == "cuda" else "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world_size,
    )
    try:
        scores = _score(job, rank, world_size, device, lambda done, number: None)
        if rank == 0:
            Path(folder, "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    except UserError as error:
        # Before the group is left, so that it is there when any other process fails for that.
        write_text(Path(folder, MISTAKE), str(error))
        raise
    finally:
        distributed.destroy_process_group()


@dataclass
class Opened:
    """A job that has been found to work: the evaluator, still without its reference, and what it will need.

    Attributes:
        evaluator: on the device.
        reference: images or statistics to compare with; None for a model that translates.
        trained: the model, or
        images: the images, that are scored.
        real: training images that are scored in the place of the model's samples.
        translation: of a model that translates, what and against what.
        likelihood: how held-out images are scored too, as in the model's run; None where they were not.
    """

    evaluator: Evaluator
    reference: ReferenceImages | StatisticsFile | None
    trained: Trained | None = None
    images: ImageFiles | None = None
    real: Source | None = None
    translation: TranslationScoring | None = None
    likelihood: LikelihoodProtocol | None = None


@dataclass(frozen=True)
class StatisticsFile:
    """Statistics in the place of reference images, and what identifies them."""

    statistics: GaussianStatistics
    protocol: Mapping[str, Any]


def _score(job: ScoringJob, rank: int, world_size: int, device: str, progress: Progress) -> list[dict[str, Any]]:
    opened = _open(job, device)
    evaluator = opened.evaluator
    number = opened.translation.num_translations if opened.translation else evaluator.num_samples
    options: dict[str, Any] = {
        "rank": rank,
        "world_size": world_size,
        "progress": lambda done: progress(done, number),
    }
    if isinstance(opened.reference, StatisticsFile):
        evaluator.use_statistics(opened.reference.statistics, opened.reference.protocol)
    elif opened.reference is not None:
        evaluator.use_reference(opened.reference)
    if opened.real is not None:
        scores = evaluator.evaluate_source(opened.real, **options)
    elif opened.translation is not None:
        assert opened.trained is not None
        opened.translation.prepare(opened.trained.model.device)
        with opened.trained.model.evaluation():
            scores = opened.translation.measure(opened.trained.model, **options)
    elif opened.trained is not None:
        with opened.trained.model.evaluation():
            scores = evaluate_model(evaluator, opened.trained.model, **options)
            if opened.likelihood is not None:
                scores += opened.likelihood.measure(opened.trained.model, rank, world_size)
    else:
        assert opened.images is not None
        images = opened.images
        protocol = {"samples": {"formats": images.formats}}
        source = Source(lambda first, size: Drawn(images.read(first, first + size)), None, protocol, 0)
        scores = evaluator.evaluate_source(source, **options)
    return [score.to_json() for score in scores]


def _open(job: ScoringJob, device: str) -> Opened:
    """Open everything that a job names and check that it fits together."""
    if is_image_collection(job.target) and not (job.target / "config.yaml").is_file():
        return _open_images(job, device)
    return _open_trained(job, device)


def _open_trained(job: ScoringJob, device: str) -> Opened:
    trained = load_trained(job.target, job.overrides, device)
    model = trained.model
    if job.real:
        return _open_real(job, trained)
    if not isinstance(model, Samples | Translates):
        raise UserError(f"{type(model).__name__} cannot sample, so it cannot be scored")
    job.sampling.apply(model)
    if not trained.config["metrics"]:
        raise UserError(f"{trained.checkpoint} was trained without metrics: name them by metrics=NAME")
    evaluator = construct(_configured(trained.config, job), Evaluator).to(model.device)
    data = load_data(trained)
    if isinstance(model, Translates):
        if job.against is not None:
            raise UserError(f"{type(model).__name__} translates the images of its own set: leave --against out")
        options = trained.config["callbacks"].get("scores") or {}
        translation = TranslationScoring(evaluator, data, model, options.get("lpips"))
        return Opened(evaluator, None, trained=trained, translation=translation)
    if job.against is None:
        reference: ReferenceImages | StatisticsFile = _of_set(data, evaluator)
    else:
        reference = _open_reference(job.against, evaluator, job.overrides)
    check_samples(evaluator, model, data.image_shape, *_known_of(reference))
    likelihood = None
    as_in_the_run = job.against is None and not job.metrics and job.sampling == AS_TRAINED
    if as_in_the_run and trained.config["callbacks"].get("likelihood"):
        likelihood = likelihood_protocol(data, trained.config["callbacks"]["likelihood"])
    return Opened(evaluator, reference, trained=trained, likelihood=likelihood)


def _open_real(job: ScoringJob, trained: Trained) -> Opened:
    """Training images, at most as many as samples would be drawn, in an order drawn by the protocol's seed."""
    if job.sampling != AS_TRAINED or job.against is not None:
        raise UserError("--real scores the run's own training images: leave --against and options of samplers out")
    if not trained.config["metrics"]:
        raise UserError(f"{trained.checkpoint} was trained without metrics: name them by metrics=NAME")
    evaluator = construct(_configured(trained.config, job), Evaluator).to(trained.model.device)
    if evaluator.reference_split == "train":
        raise UserError("--real would compare the training images with themselves: set metrics.reference_split=test")
    data = load_data(trained)
    train = data.split("train")
    order = torch.randperm(len(train), generator=make_rng("real images", evaluator.seed))
    chosen = data.in_memory(train.subset(order[: evaluator.num_samples]), "train")
    evaluator.num_samples = len(chosen)
    reference = _of_set(data, evaluator)
    evaluator.check(data.image_shape, reference.size, data.num_classes or None, walks=False)
    protocol = {"samples": {"dataset": data.name, "split": "train", "digest": chosen.digest}}

    def draw(first: int, number: int) -> Drawn:
        part = slice(first, first + number)
        return Drawn(chosen.images[part], None if chosen.labels is None else chosen.labels[part])

    return Opened(evaluator, reference, trained=trained, real=Source(draw, None, protocol, 0))


def _open_images(job: ScoringJob, device: str) -> Opened:
    if job.real:
        raise UserError(f"{job.target} holds images: leave --real out")
    if job.sampling != AS_TRAINED:
        raise UserError(f"{job.target} holds images: leave --sampler, --steps and --guidance-scale out")
    if job.against is None:
        raise UserError(f"{job.target} holds images: name what to compare them with by --against SET, FOLDER or FILE")
    config = _config_of_images(job)
    images = ImageFiles(job.target, Path(config["cache_dir"]))
    number = job.num_samples or len(images)
    if number > len(images):
        raise UserError(f"--num-samples {number}, but {job.target} holds {len(images)} images")
    config |= {
        "num_samples": number,
        "metrics": [_shuffled(metric) for metric in config["metrics"]],
        # The user chose both sides; of few images the distance is biased but defined.
        "minimum_reference": config["minimum_reference"] or 2,
    }
    evaluator = construct(config, Evaluator).to(pick_device(device))
    reference = _open_reference(job.against, evaluator, job.overrides)
    size, parts = _known_of(reference)
    evaluator.check(images.image_shape, size, reference_parts=parts, walks=False)
    return Opened(evaluator, reference, images=images)


def _config_of_images(job: ScoringJob) -> dict[str, Any]:
    """The config of an evaluator where no run has one: ``metrics=NAME``, that of the set, or Inception's."""
    assert job.against is not None
    choice = next((key.partition("=")[2] for key in job.overrides if key.startswith("metrics=")), None)
    if choice is None:
        choice = "inception" if job.extractor or _is_path(job.against) else job.against
    options = [key for key in job.overrides if key.startswith(("metrics.", "paths."))]
    config = compose_config([f"metrics={choice}", *options])
    if config["metrics"] is None:
        raise UserError(f"metrics={choice} names no metrics")
    return _configured(config, job)


def _shuffled(metric: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
    """Files may be in the order of their classes, of which no split of the Inception Score may hold only some."""
    return {"name": metric, "shuffle": True} if metric == "inception_score" else metric


def _configured(config: Mapping[str, Any], job: ScoringJob) -> dict[str, Any]:
    """The section ``metrics`` of a config, with what the job says instead."""
    changed = dict(config["metrics"])
    if job.extractor is not None:
        changed["extractor"] = _extractor_options(job.extractor, config["paths"].get("extractors_dir"))
    if job.weights is not None:
        changed["extractor"] = {**changed["extractor"], "weights": job.weights}
    if job.metrics:
        changed["metrics"] = list(job.metrics)
    if job.num_samples is not None:
        changed["num_samples"] = job.num_samples
    return changed


def _extractor_options(name: str, folder: str | None) -> dict[str, Any]:
    """The options of an extractor by its name, which may be that of one in the folder of trained ones."""
    if folder is not None and Path(folder, f"{name}.safetensors").is_file():
        return {"name": "trained", "weights": name, "folder": folder}
    return {"name": name}


def _open_reference(against: str, evaluator: Evaluator, overrides: Sequence[str]) -> ReferenceImages | StatisticsFile:
    path = Path(against)
    if not _is_path(against):
        options = [key for key in overrides if key.startswith(("data.", "data@", "paths."))]
        data = construct(compose_data(against, options), ImageDataModule)  # type: ignore[type-abstract]
        return _of_set(data, evaluator)
    if is_statistics_file(path):
        statistics = read_statistics(path)
        return StatisticsFile(statistics, statistics_protocol(path, statistics))
    images = ImageFiles(path, evaluator.cache_dir)
    evaluator.extractor.check_image_shape(images.image_shape)
    number = len(images) if evaluator.num_reference is None else min(evaluator.num_reference, len(images))
    evaluator.reference_split = "all"
    return ReferenceImages(images.name, "all", number, images.digest, images.read, None, {"formats": images.formats})


def _of_set(data: ImageDataModule, evaluator: Evaluator) -> ReferenceImages:
    evaluator.extractor.check_image_shape(data.image_shape)
    split = evaluator.reference_split
    chosen = data.reference_set(split, evaluator.num_reference)
    return ReferenceImages.of(data.name, split, chosen.images, chosen.labels)


def _is_path(against: str) -> bool:
    """Whether it is a file or folder, and no data set of ``configs/data``.

    Raises:
        UserError: it is neither.
    """
    if (config_dir() / "data" / f"{against}.yaml").is_file() and "/" not in against:
        return False
    if not Path(against).exists():
        raise UserError(f"--against {against}: no data set, folder or file of that name")
    return True


def _known_of(reference: ReferenceImages | StatisticsFile) -> tuple[int | None, tuple[str, ...] | None]:
    """Size and parts of a reference, as `Evaluator.check` takes them."""
    return (None, ("statistics",)) if isinstance(reference, StatisticsFile) else (reference.size, None)


def statistics_of(
    against: str,
    overrides: Sequence[str] = (),
    extractor: str | None = None,
    weights: str | None = None,
    device: str = "auto",
) -> GaussianStatistics:
    """Statistics of the features of a data set, or of a folder or archive of images.

    Args:
        against: name of the set, or path.
        overrides: as in a `ScoringJob` of images.
        extractor: see `ScoringJob`.
        weights: see `ScoringJob`.
        device: see `ScoringJob`.

    Raises:
        UserError: see `score`.
    """
    if _is_path(against) and is_statistics_file(Path(against)):
        return read_statistics(Path(against))
    job = ScoringJob(Path(), against, overrides, ["frechet_distance"], None, extractor, weights)
    evaluator = construct(_config_of_images(job), Evaluator).to(pick_device(device))
    reference = _open_reference(against, evaluator, overrides)
    assert isinstance(reference, ReferenceImages)
    evaluator.use_reference(reference)
    return evaluator.reference_statistics
