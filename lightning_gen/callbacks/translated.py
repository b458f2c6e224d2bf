"""How translations are scored: which images are translated, what they are compared with, and by which measures."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.module import ImageDataModule
from lightning_gen.data.pairs import PairDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import to_float, to_uint8, with_channels
from lightning_gen.metrics.base import SCORING_VERSION, Score
from lightning_gen.metrics.evaluator import Drawn, Evaluator, Source
from lightning_gen.metrics.translation import ImageMean, PairMeasure, absolute_difference, load_lpips, pair_measures
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import Translates
from lightning_gen.seeds import make_rng

SPLIT = "test"
"""The split whose images are translated."""
BACK = {"AtoB": "BtoA", "BtoA": "AtoB"}
"""Every direction, and the one that leads back."""
COPY = "copy_l1"
"""Name of the score of copying the input."""


class TranslationScoring:
    """The scores of a model's translations of the test images, in every direction that it knows.

    Of each direction: the evaluator's metrics, on translations against the images of the target domain; of a paired set
    also `pair_measures` against the partners, and `COPY`, what copying the input scores; with both directions also the
    mean absolute difference of ``cycle_l1_A`` images of A and what comes back from B, and ``cycle_l1_B``. Scores of the
    direction BtoA end with ``_BtoA``.

    The first ``evaluator.num_samples`` inputs are translated, or all if there are fewer, in blocks and with generators
    as in `Evaluator.evaluate`, so that scores are equal at any number of processes. What the extractor sees has the
    channels of domain B, for which it was chosen, and is canonical (`PairDataModule.canonical`).

    Args:
        evaluator: extractor, metrics and reference split.
        data: the set.
        model: what will be scored; only its directions and shapes are looked at.
        lpips: see `load_lpips`.

    Raises:
        UserError: the set has one domain or too few images, or the model or a metric does not fit it.
    """

    def __init__(
        self, evaluator: Evaluator, data: ImageDataModule, model: GenerativeModel, lpips: bool | None = None
    ) -> None:
        assert isinstance(model, Translates)
        name = type(model).__name__
        if not isinstance(data, PairDataModule):
            raise UserError(f"{data.name} has one domain, so {name} cannot translate it: set data to a set of pairs")
        _check_shapes(data, model)
        self.data = data
        self.directions = tuple(model.directions)
        self.evaluators = {direction: self._evaluator(evaluator, direction) for direction in self.directions}
        self.lpips = load_lpips(data.image_size, lpips) if data.paired else None
        self._inputs: dict[str, ImageSet] = {}
        self._targets: dict[str, ImageSet] = {}

    @property
    def num_translations(self) -> int:
        """Images that are translated in one evaluation, cycles aside."""
        return sum(evaluator.num_samples for evaluator in self.evaluators.values())

    def prepare(self, device: torch.device) -> None:
        """Read the images, compute or load what is needed of the references, and move the extractors."""
        if self.lpips is not None:
            self.lpips.to(device)
        for direction, evaluator in self.evaluators.items():
            source, target = domains(direction)
            number = evaluator.num_samples
            self._inputs[direction] = self.data.domain_set(source, SPLIT, number)
            if self.data.paired:
                self._targets[direction] = self.data.domain_set(target, SPLIT, number)
            # Damaged images that are skipped are found only now.
            evaluator.num_samples = len(self._inputs[direction])
            reference = self.data.domain_set(target, evaluator.reference_split, evaluator.num_reference)
            evaluator.to(device).set_reference(
                self.data.name, self._seen_reference(reference.images, target), reference.labels
            )

    def measure(
        self,
        model: GenerativeModel,
        *,
        rank: int = 0,
        world_size: int = 1,
        on_draw: Callable[[], None] = lambda: None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Score]:
        """The scores of a model that is in evaluation mode; every process calls it and gets the same.

        Args:
            model: what is scored.
            rank: this process, from 0.
            world_size: number of processes.
            on_draw: called before every block of images.
            progress: called with the number of images that this process has translated.
        """
        scores: list[Score] = []
        cycles: list[Score] = []
        before = 0
        for direction, evaluator in self.evaluators.items():
            translating = _Direction(self, model, direction, on_draw)
            found = evaluator.evaluate_source(
                translating.source(),
                rank=rank,
                world_size=world_size,
                progress=lambda done, before=before: progress(before + done),  # type: ignore[misc]
            )
            scores += [_suffixed(score, direction) for score in (*found, *translating.pair_scores())]
            cycles += translating.cycle_scores()
            before += evaluator.num_samples
        return scores + cycles

    def _evaluator(self, evaluator: Evaluator, direction: str) -> Evaluator:
        """The evaluator of one direction, which has found its images to be enough."""
        source, target = domains(direction)
        number = min(evaluator.num_samples, self.data.domain_size(source, SPLIT))
        if number < 2:
            raise UserError(f"{self.data.name} has {number} {SPLIT} images to translate, and scores need at least 2")
        own = copy.copy(evaluator)
        own.num_samples = number
        reference_size = self.data.domain_size(target, own.reference_split)
        own.check(self.data.image_shape, reference_size, self.data.num_classes or None, walks=False)
        return own

    def _seen(self, images: Tensor, domain: str) -> Tensor:
        """Float images of a domain as the extractor sees them."""
        canonical = self.data.canonical(domain)
        shown = images if canonical is None else canonical.apply(images)
        return with_channels(shown, self.data.image_channels)

    def _seen_reference(self, images: Tensor, domain: str) -> Tensor:
        """The same of uint8 images, which need not be in memory where they stay as they are."""
        if self.data.canonical(domain) is None and images.shape[1] == self.data.image_channels:
            return images
        return torch.cat([to_uint8(self._seen(to_float(block), domain)) for block in images.split(1024)])

    def _protocol(self, model: GenerativeModel, direction: str) -> dict[str, Any]:
        """What is shared by the protocols of all scores of translations in a direction."""
        evaluator = self.evaluators[direction]
        return {
            "block_size": evaluator.block_size,
            "labels": None,
            "weights": "raw" if model.average is None else "ema",
            "sampler": model.sampler_settings(),
            "seed": evaluator.seed,
            "translation": {"direction": direction, "inputs": self._describe(self._inputs[direction])},
        }

    def _describe(self, images: ImageSet) -> dict[str, Any]:
        return {"dataset": self.data.name, "split": SPLIT, "size": len(images), "digest": images.digest}


class _Direction:
    """One evaluation of one direction: translates block by block and keeps the sums of the measures."""

    def __init__(
        self, scoring: TranslationScoring, model: GenerativeModel, direction: str, on_draw: Callable[[], None]
    ) -> None:
        self.scoring = scoring
        self.model = model
        self.direction = direction
        self.on_draw = on_draw
        self.inputs = scoring._inputs[direction]
        self.targets = scoring._targets.get(direction)
        self.measures = pair_measures(scoring.data.image_size, scoring.lpips) if self.targets else []
        names = [*(measure.name for measure in self.measures), *([COPY] if self.targets else [])]
        self.sums = {name: ImageMean().to(model.device) for name in names}
        self.cycle = ImageMean().to(model.device) if BACK[self.direction] in scoring.directions else None

    def source(self) -> Source:
        """Where the evaluator gets translations from."""
        protocol = self.scoring._protocol(self.model, self.direction)
        target = domains(self.direction)[1]
        canonical = self.scoring.data.canonical(target)
        seen = {"form": canonical and canonical.name, "channels": self.scoring.data.image_channels}
        translation = {**protocol["translation"], "seen_as": seen}
        return Source(self.draw, None, {**protocol, "translation": translation}, self.model.images_seen)

    def draw(self, first: int, number: int) -> Drawn:
        """Translations of a block of inputs, as the extractor sees them, with the inputs' labels."""
        self.on_draw()
        model = self.model
        assert isinstance(model, Translates)
        evaluator = self.scoring.evaluators[self.direction]
        rng = make_rng("evaluation", evaluator.seed, first // evaluator.block_size)
        block = slice(first, first + number)
        inputs = to_float(self.inputs.images[block].to(model.device))
        outputs = model.translate(inputs, self.direction, generator=rng).float()
        if self.targets is not None:
            targets = to_float(self.targets.images[block].to(model.device))
            for measure in self.measures:
                self.sums[measure.name].update(measure.of(outputs, targets))
            self.sums[COPY].update(absolute_difference(with_channels(inputs, targets.shape[1]), targets))
        if self.cycle is not None:
            back = model.translate(outputs, BACK[self.direction], generator=rng)
            self.cycle.update(absolute_difference(back, inputs))
        labels = None if self.inputs.labels is None else self.inputs.labels[block]
        return Drawn(self.scoring._seen(outputs, domains(self.direction)[1]), labels)

    def pair_scores(self) -> list[Score]:
        """The measures against the inputs' partners, and what copying the inputs would score."""
        if self.targets is None:
            return []
        scores = [self._score(measure, self.sums[measure.name]) for measure in self.measures]
        copied = self._score(PairMeasure(COPY, absolute_difference, ranked=False), self.sums[COPY])
        # It is no score of the model.
        kept = {key: value for key, value in copied.protocol.items() if key not in ("weights", "sampler", "seed")}
        return [*scores, dataclasses.replace(copied, protocol=kept)]

    def cycle_scores(self) -> list[Score]:
        """How far the inputs are from what comes back."""
        if self.cycle is None:
            return []
        name = f"cycle_l1_{domains(self.direction)[0]}"
        return [self._score(PairMeasure(name, absolute_difference), self.cycle, "cycle_l1", self.inputs)]

    def _score(
        self, measure: PairMeasure, mean: ImageMean, metric: str | None = None, reference: ImageSet | None = None
    ) -> Score:
        value, std = mean.compute()
        compared = reference or self.targets
        assert compared is not None
        protocol = {
            "metric": {"name": metric or measure.name, **measure.settings},
            "extractor": measure.extractor,
            "reference": self.scoring._describe(compared),
            "num_samples": len(self.inputs),
            **self.scoring._protocol(self.model, self.direction),
            "scoring_version": SCORING_VERSION,
        }
        return Score(
            name=measure.name,
            value=value,
            std=std,
            images_seen=self.model.images_seen,
            lower_is_better=measure.lower_is_better,
            ranked=measure.ranked,
            protocol=protocol,
        )


def domains(direction: str) -> tuple[str, str]:
    """The domain of a direction's inputs, ``A`` or ``B``, and that of its outputs."""
    return direction[0], direction[-1]


def _suffixed(score: Score, direction: str) -> Score:
    return score if direction == "AtoB" else dataclasses.replace(score, name=f"{score.name}_{direction}")


def _check_shapes(data: PairDataModule, model: GenerativeModel) -> None:
    assert isinstance(model, Translates)
    name = type(model).__name__
    for domain, shape in (("A", data.input_shape), ("B", data.image_shape)):
        channels = model.domain_shapes[domain][0]
        if channels != shape[0]:
            raise UserError(f"{name} is for {channels} channels in domain {domain}, but {data.name} has {shape[0]}")
    if data.image_size % model.size_multiple:
        raise UserError(
            f"data.image_size={data.image_size}, but {name} takes multiples of {model.size_multiple}: set another"
        )
