import sys
from pathlib import Path

import pytest

from lightning_gen.configuration import compose_config, config_dir
from lightning_gen.errors import UserError
from lightning_gen.registry import resolve
from tests.conftest import ROOT

GROUPS = [
    f"{file.parent.name}={file.stem}"
    for file in sorted((ROOT / "configs").glob("*/*.yaml"))
    if file.stem != "default" and not file.stem.startswith("_")
]
NEEDS = {
    **{
        f"data={name}": "data.path" for name in ("image_folder", "huggingface", "paired", "unpaired", "unpaired_halves")
    },
    "metrics=trained": "metrics.extractor.weights",
}
"""Options with a key that has no default."""


@pytest.mark.parametrize("choice", GROUPS)
def test_every_option_composes_and_names_what_exists(choice: str) -> None:
    config = compose_config([choice, *([f"{NEEDS[choice]}=somewhere"] if choice in NEEDS else [])])
    targets = [config["model"]["_target_"], config["data"]["_target_"]]
    targets += [callback["_target_"] for callback in config["callbacks"].values() if callback]
    for target in targets:
        assert resolve(target, object)


def test_metrics_follow_the_data() -> None:
    assert compose_config(["data=mnist"])["metrics"]["extractor"]["name"] == "mnist"
    assert compose_config(["data=mnist", "metrics=inception"])["metrics"]["extractor"]["name"] == "inception"
    assert compose_config(["experiment=dcgan_mnist"])["metrics"]["extractor"]["name"] == "mnist"


@pytest.mark.parametrize(("choice", "key"), NEEDS.items())
def test_a_key_without_a_default_is_asked_for(choice: str, key: str) -> None:
    with pytest.raises(UserError) as error:
        compose_config([choice])
    assert str(error.value) == f"{key} has no default: give it as {key}=..."


def test_derived_sets_take_any_other_set() -> None:
    assert compose_config(["data=edges"])["data"]["source"]["_target_"].endswith("DigitsDataModule")
    data = compose_config(["data=edges", "data@data.source=cifar10", "metrics=none", "data.image_size=48"])["data"]
    assert data["source"]["_target_"].endswith("CIFAR10DataModule")
    assert data["image_size"] == data["source"]["image_size"] == 48


def test_none_empties_a_group_that_an_experiment_writes_into() -> None:
    config = compose_config(["experiment=biggan_cifar10", "ema=none", "metrics=none", "logger=none"])
    assert (config["ema"], config["metrics"], config["logger"]) == (None, None, None)
    assert compose_config(["experiment=biggan_cifar10"])["ema"]["half_life_images"] == 1_400_000


def test_runs_are_named_after_model_and_data() -> None:
    assert compose_config([])["experiment_name"] == "dcgan_small_digits"
    assert compose_config(["data=mnist", "model=dcgan"])["experiment_name"] == "dcgan_mnist"
    assert compose_config(["experiment=dcgan_mnist"])["experiment_name"] == "dcgan_mnist"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.max_step=5", "Unknown config key 'trainer.max_step'. Did you mean 'trainer.max_steps'?"),
        ("sede=5", "Unknown config key 'sede'. Did you mean 'seed'?"),
        ("model=dcgann", "dcgan"),
        ("experiment=nothing", "dcgan_digits"),
    ],
)
def test_a_typo_gives_one_line_with_a_suggestion(override: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        compose_config([override])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_config_dir_is_the_clones(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(config_dir()).joinpath("train.yaml").is_file()
    assert "lightning_gen.training" not in sys.modules or config_dir().name == "configs"
