"""Which runs are behind the sections on few labels of docs/results.md: experiments, and what is changed in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Runs:
    """Runs of one method, a run for each seed.

    Attributes:
        title: in tables.
        experiment: of ``configs/experiment``.
        name: ``experiment_name``, which keeps them apart from others of that experiment; None for the experiment's.
        overrides: changes of the experiment.
        sources: key -> runs whose first one, at the seed `SOURCE_SEED`, is handed over under this key.
        published: error in percent that a paper has, with the letter of its source (`SOURCES`).
        least_per_class: labelled images of a class that the method needs.
    """

    title: str
    experiment: str
    name: str | None = None
    overrides: tuple[str, ...] = ()
    sources: Mapping[str, Runs] | None = None
    published: str = ""
    least_per_class: int = 1

    @property
    def folder(self) -> str:
        """Below the output folder."""
        return self.name or self.experiment

    def command(self, run_name: str, seed: int, output_dir: Path, *more: str) -> list[str]:
        """The overrides of one run."""
        handed = [f"{key}={output_dir / each.folder / source_name()}" for key, each in (self.sources or {}).items()]
        place = [f"experiment_name={self.folder}", f"run_name={run_name}", f"seed={seed}"]
        return [f"experiment={self.experiment}", *place, *self.overrides, *handed, *more]


SOURCE_SEED = 0
"""Of the runs that others build on, which see no label or, as `FIRST_FIVE`, all of other classes: none is drawn."""


def source_name() -> str:
    """Name of the run that others build on."""
    return f"seed{SOURCE_SEED}"


def labels_name(number: int, seed: int) -> str:
    """Name of a run that was given so many labels."""
    return f"labels{number}-seed{seed}"


NUM_CLASSES = 10

VAE = Runs("VAE", "vae_mnist")
GAN = Runs("DCGAN", "dcgan_mnist")

METHODS = {
    "classifier": Runs("the labelled images alone", "classifier_mnist", published="25.81, 22.98 by convolutions (a)"),
    "gaussian_mixture": Runs(
        "Gaussian mixture on a VAE's codes",
        "gaussian_mixture_mnist",
        overrides=("model.pca=null",),
        sources={"model.source.run": VAE},
        published="11.82 ± 0.25 by a transductive SVM on them (a)",
    ),
    "self_training": Runs(
        "self-training", "self_training_mnist", published="16.15, 10.49 with a denoising autoencoder (b)"
    ),
    "co_training": Runs("co-training", "co_training_mnist"),
    "svm_features": Runs(
        "SVM on a DCGAN's features",
        "svm_features_mnist",
        # as the DCGAN was trained
        overrides=("data.image_size=32",),
        sources={"model.source.run": GAN},
        least_per_class=2,
    ),
    "m2": Runs("M2", "m2_mnist", published="11.97 ± 1.71, 3.33 ± 0.14 on a VAE's codes (a)"),
    "sgan": Runs("SGAN", "sgan_mnist", published="0.93 ± 0.065 (c)"),
}
"""On MNIST, by the name that ``--methods`` and ``--curve-methods`` take."""

CURVE_METHODS = ("classifier", "gaussian_mixture", "self_training", "co_training", "svm_features")
CURVE_LABELS = (10, 50, 100, 1000)

SOURCES = (
    "(a) Kingma et al. 2014, [Semi-supervised learning with deep generative models](https://arxiv.org/abs/1406.5298), "
    "table 1. (b) Lee 2013, Pseudo-label, ICML workshop on challenges in representation learning, table 1. (c) "
    "Salimans et al. 2016, [Improved techniques for training GANs](https://arxiv.org/abs/1606.03498), table 1."
)

FIRST_FIVE = Runs(
    "classifier of the digits 0 to 4",
    "classifier_mnist",
    name="classifier_mnist_first_five",
    overrides=("data.classes=[0,1,2,3,4]", "data.labelled_per_class=null"),
)
MODES = {"scratch": "from scratch", "freeze": "body frozen", "finetune": "body tuned further"}
TRANSFER_PER_CLASS = 5
ALL_DIGITS = ("data.classes=null", "data.labelled_batch_size=50")


def transfers() -> dict[str, list[Runs]]:
    """Body and task -> the runs of every mode."""
    tasks: dict[str, tuple[Runs, tuple[str, ...]]] = {
        "all digits, a VAE's encoder": (VAE, ALL_DIGITS),
        "all digits, a DCGAN's discriminator": (GAN, (*ALL_DIGITS, "data.image_size=32")),
        "5 to 9, a classifier of 0 to 4": (FIRST_FIVE, ("data.classes=[5,6,7,8,9]",)),
    }
    return {
        title: [
            Runs(
                words,
                "transfer_mnist",
                name=f"transfer_mnist_{body.folder}_{mode}",
                overrides=(f"model.mode={mode}", f"data.labelled_per_class={TRANSFER_PER_CLASS}", *changes),
                sources={"model.body.run": body},
            )
            for mode, words in MODES.items()
        ]
        for title, (body, changes) in tasks.items()
    }


def adaptations(data: str, image_size: int) -> list[Runs]:
    """Every method on the adaptation experiments of a set, at the size that its CycleGAN takes."""
    size = (f"data.image_size={image_size}",)
    translator = Runs(f"CycleGAN on {data}", f"cyclegan_adaptation_{data}")
    return [
        Runs("source alone", f"source_only_{data}", overrides=size),
        Runs("DANN", f"dann_{data}", overrides=size),
        Runs("ADDA", f"adda_{data}", overrides=size),
        Runs(
            "source translated by CycleGAN",
            f"translated_source_{data}",
            overrides=size,
            sources={"callbacks.translated_source.translator": translator},
        ),
        Runs("target with its labels", f"target_supervised_{data}", overrides=size),
    ]


DOMAINS = {"MNIST to textured MNIST": adaptations("mnist", 32), "digits to negatives": adaptations("digits", 16)}
"""From a source with labels to a target without."""

GENERATORS = (
    Runs("cDCGAN", "cdcgan_digits"),
    Runs("ACGAN", "acgan_digits"),
    Runs("conditional VAE", "cvae_digits"),
    Runs("diffusion with guidance", "guided_diffusion_digits"),
    Runs("M2", "m2_digits"),
)
"""On digits. M2 is given ten labels a class, those that the classifier of the same seed is given; the others all."""

FEW = Runs("few real images", "classifier_digits")
ALL = Runs("all real images", "classifier_digits", "classifier_digits_all", ("data.labelled_per_class=null",))


def with_generated(generator: Runs, seed: int, output_dir: Path, *, only: bool) -> Runs:
    """The classifier that is trained on a generator's samples too, or on them alone."""
    changes = [f"data.generated.path={samples_file(generator, seed, output_dir)}"]
    if only:
        changes += ["data.generated.only=true", "data.labelled_per_class=null"]
    kind = "generated" if only else "few_and_generated"
    return Runs(generator.title, "classifier_digits", f"classifier_digits_{kind}_{generator.folder}", tuple(changes))


def samples_file(generator: Runs, seed: int, output_dir: Path) -> Path:
    """Where the samples of a generator's run are kept."""
    return output_dir / "samples" / f"{generator.folder}-seed{seed}.npz"


def scores_file(name: str, seed: int, output_dir: Path) -> Path:
    """Where the scores of a generator's run are kept."""
    return output_dir / "scores" / f"{name}-seed{seed}.json"


def error_of(record: Mapping[str, Any]) -> float:
    """The last test error in percent."""
    value: float = next(score["value"] for score in record["scores"] if score["name"] == "test_error")
    return value
