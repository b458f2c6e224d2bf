from typing import Any

import pytest
import torch

from lightning_gen.data import ImageBatch, SemiSupervisedBatch
from lightning_gen.data.labels import class_law, labelled_subset
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.metrics.evaluator import Evaluator
from lightning_gen.models import GenerativeModel


def test_the_law_is_the_share_of_each_class() -> None:
    assert class_law(torch.tensor([0, 2, 2, 2, 0, 2, 2, 2]), 4) == [0.25, 0.0, 0.75, 0.0]


def test_a_data_modules_law_is_its_training_splits() -> None:
    data = DigitsDataModule("unused")
    law = data.label_law
    assert law is not None
    labels = data.split("train").labels
    assert labels is not None
    assert law[3] == pytest.approx((labels == 3).sum().item() / 1437)
    assert sum(law) == pytest.approx(1)


def test_the_labelled_subset_is_balanced_drawn_by_seed_and_repeatable() -> None:
    labels = torch.randint(10, (2000,), generator=torch.Generator().manual_seed(0))
    chosen = labelled_subset(labels, 10, per_class=7, seed=3)
    assert torch.bincount(labels[chosen]).tolist() == [7] * 10
    assert len(chosen.unique()) == 70
    assert torch.equal(chosen, labelled_subset(labels, 10, per_class=7, seed=3))
    assert not torch.equal(chosen, labelled_subset(labels, 10, per_class=7, seed=4))


def test_impossible_subsets_are_refused() -> None:
    with pytest.raises(UserError, match="class 1 has 1 training images, less than"):
        labelled_subset(torch.tensor([0, 0, 1]), 2, per_class=2, seed=0)
    with pytest.raises(UserError, match="at least 1"):
        DigitsDataModule("unused", labelled_per_class=0).check()


@pytest.mark.parametrize("residency", ["memory", "stream"])
def test_only_labelled_images_show_their_label(residency: Any) -> None:
    data = DigitsDataModule(
        "unused", labelled_per_class=5, labelled_batch_size=20, batch_size=32, residency=residency, num_workers=1
    )
    truth = data.split("train").labels
    assert truth is not None
    shown = 0
    for columns in data.train_dataloader():
        batch = data.on_after_batch_transfer(columns, 0)
        assert isinstance(batch, SemiSupervisedBatch)
        assert len(batch.images) == 32
        assert batch.labelled_images.shape == (20, 1, 32, 32)
        assert batch.labelled_labels.min() >= 0
        assert torch.bincount(batch.labelled_labels, minlength=10).sum() == 20
        shown += int((batch.labels >= 0).sum())
    # 44 batches of 32 show 1,408 of the 1,437 images, so nearly all of the 50 labelled ones.
    assert 45 <= shown <= 50
    data.teardown("fit")


def test_ordered_batches_are_plain() -> None:
    data = DigitsDataModule("unused", labelled_per_class=5)
    (columns, *_) = data.test_dataloader()
    batch = data.on_after_batch_transfer(columns, 0)
    assert isinstance(batch, ImageBatch)
    assert batch.labels is not None
    assert batch.labels.min() >= 0


class Conditional(GenerativeModel):
    """Draws images whose brightness is their label."""

    def __init__(self, law: list[float] | None) -> None:
        super().__init__()
        self.label_law = law

    def training_iteration(self, batch: Any) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def sample(
        self, num_samples: int, labels: torch.Tensor | None = None, *, generator: torch.Generator
    ) -> torch.Tensor:
        labels = self.draw_labels(num_samples, generator=generator) if labels is None else labels
        return (labels.float()[:, None, None, None] / 2 - 1).expand(-1, 1, 8, 8)


def test_labels_follow_the_law() -> None:
    model = Conditional([0.5, 0.0, 0.25, 0.25])
    labels = model.draw_labels(8000, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(labels, minlength=4)
    assert counts[1] == 0
    assert counts[0].item() == pytest.approx(4000, abs=150)
    assert counts[2].item() == pytest.approx(2000, abs=130)


def test_the_law_is_part_of_the_protocol(tmp_path: Any) -> None:
    from lightning_gen.callbacks.scores import evaluate_model

    evaluator = Evaluator(
        {"name": "random", "num_features": 4}, ["inception_score"], num_samples=64, cache_dir=tmp_path
    )

    def protocol(law: list[float] | None) -> tuple[Any, str]:
        model = Conditional([0.5, 0.5] if law is None else law)
        model.label_law = model.label_law if law is not None else None
        if law is None:
            model.draw_labels = lambda n, generator: torch.zeros(n)  # type: ignore[assignment, method-assign, misc]
        (score,) = evaluate_model(evaluator, model)
        return score.protocol["labels"], score.to_json()["protocol_hash"]

    assert protocol(None)[0] is None
    assert protocol([0.5, 0.5])[0] == {"law": [0.5, 0.5]}
    assert len({protocol(law)[1] for law in (None, [0.5, 0.5], [0.25, 0.75])}) == 3
