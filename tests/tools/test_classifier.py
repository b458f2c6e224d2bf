import pytest
import torch

from lightning_gen.data.image_set import ImageSet
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.metrics.extractors import FeatureExtractor, Features, create_extractor
from lightning_gen.tools.classifier import Classifier


class Brightness(FeatureExtractor):
    """Three classes: dark, middle and bright, by the first pixel."""

    name = "brightness"
    num_features = 1
    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.levels = torch.nn.Parameter(torch.tensor([0.0, 128.0, 255.0]), requires_grad=False)

    def forward(self, images: torch.Tensor) -> Features:
        assert images.dtype == torch.uint8
        first = images[:, 0, 0, :1].float()
        return Features(first, -(first - self.levels).abs())

    def check_image_shape(self, image_shape: tuple[int, int, int]) -> None:
        if image_shape[0] != 1:
            raise UserError("grey images only")


def grey(*levels: int) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)


def test_the_class_is_that_of_the_largest_logit_for_images_of_either_type() -> None:
    classifier = Classifier(Brightness(), (1, 2, 2), ["dark", "middle", "bright"])
    images = grey(*([10, 250, 100] * 50))
    assert classifier.classify(images).tolist() == [0, 2, 1] * 50
    assert classifier(to_float(images)).tolist() == [0, 2, 1] * 50


def test_accuracy_is_the_share_of_labels_it_finds() -> None:
    classifier = Classifier(Brightness(), (1, 2, 2), ["dark", "middle", "bright"])
    images = ImageSet(grey(10, 250, 100, 130), torch.tensor([0, 1, 1, 1]))
    assert classifier.measure(images) == 3 / 4


def test_classes_are_known_by_name_before_number() -> None:
    classifier = Classifier(Brightness(), (1, 2, 2), ["2", "cat", "dog"])
    assert [classifier.index(name) for name in ("2", "cat", "1", "0")] == [0, 1, 1, 0]
    for name in ("3", "-1", "bird"):
        with pytest.raises(UserError, match="No class"):
            classifier.index(name)


@pytest.mark.parametrize("names", [[], ["a", "b"], ["a", "b", "c", "d"]])
def test_an_extractor_with_other_classes_than_the_set_is_refused(names: list[str]) -> None:
    with pytest.raises(UserError, match=f"has 3 classes and the data set {len(names)}"):
        Classifier(Brightness(), (1, 2, 2), names)


def test_images_that_the_extractor_cannot_take_are_refused() -> None:
    with pytest.raises(UserError, match="grey images only"):
        Classifier(Brightness(), (3, 2, 2), ["a", "b", "c"])
    with pytest.raises(UserError, match=r"data\.image_size"):
        Classifier(create_extractor("digits"), (1, 64, 64), ["a"] * 10)
