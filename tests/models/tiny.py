"""Every model of configs/model in a size that trains in a moment, for tests that go through all of them."""

from __future__ import annotations

from typing import Any

import yaml

from lightning_gen.configuration import compose_config, config_dir
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import Samples
from lightning_gen.models.gan import GAN
from lightning_gen.models.pixel_model import PixelModel
from lightning_gen.models.translation import TranslationModel
from lightning_gen.registry import resolve

WIDTHS = ["model.generator.base_channels=4", "model.discriminator.base_channels=4"]

SEVERAL_STEPS = [*WIDTHS, "model.generator_batch_size=16", "data.batch_size=40"]
TRANSLATION = [*WIDTHS, "model.discriminator.num_layers=2", "data.batch_size=4"]
PIXELS = ["data.image_size=8", "+model.law.levels=17", "model.network.channels=6"]
MLP = ["model.generator.hidden=[24,16]", "model.discriminator.units=8"]

HIDDEN = ["model.encoder.hidden=[12]", "model.decoder.hidden=[12]"]
CONV = [f"model.{network}.{key}" for network in ("encoder", "decoder") for key in ("base_channels=2", "hidden=8")]
FEW_SAMPLES = ["model.importance_samples=2", "model.mixture={components:2,num_images:64}"]

MAPS = "channels:4,residual_channels:4"
FIRST_STAGE = (
    "{_target_:lightning_gen.models.vqvae.VQVAE,image_shape:[1,32,32],num_codes:16,code_dim:3,optimizer:{name:Adam},"
    f"encoder:{{_target_:lightning_gen.networks.encoders.MapEncoder,{MAPS}}},"
    f"decoder:{{_target_:lightning_gen.networks.decoders.MapDecoder,{MAPS}}}}}"
)

DISCRIMINATED = (
    "{_target_:lightning_gen.models.gan.GAN,image_shape:[1,32,32],latent_dim:4,"
    "generator:{_target_:lightning_gen.networks.dcgan.DCGANGenerator,base_channels:2},"
    "discriminator:{_target_:lightning_gen.networks.dcgan.DCGANDiscriminator,base_channels:2},"
    "generator_optimizer:{name:Adam},discriminator_optimizer:{name:Adam}}"
)

KL_STAGE = (
    "{_target_:lightning_gen.models.kl_autoencoder.KLAutoencoder,image_shape:[1,8,8],latent_channels:3,"
    f"optimizer:{{name:Adam}},encoder:{{_target_:lightning_gen.networks.encoders.MapEncoder,{MAPS},halvings:1}},"
    f"decoder:{{_target_:lightning_gen.networks.decoders.MapDecoder,{MAPS},halvings:1}}}}"
)
FIRST_STAGES = [
    "data.image_size=8",
    "model.latent_channels=3",
    "model.encoder={channels:4,multipliers:[1,2],blocks:1,attention:false}",
    "model.decoder={channels:4,blocks:1,attention:false}",
    "model.discriminator={base_channels:4,num_layers:1}",
    "model.adversarial_start=1",
    # Hinge losses begin with gradients that cancel in the last bias, which every test of training would call frozen.
    "model.loss=non_saturating",
]

DENOISING = [
    "data.image_size=8",
    "data.batch_size=16",
    *(f"model.network.{key}" for key in ("channels=8", "multipliers=[1]", "blocks=1", "attention_sizes=[]")),
    "model.sampler.steps=3",
    "+model.likelihood.steps=2",
]
FLOW = [*DENOISING, "model.network.head_channels=null"]
GUIDED = ["model.conditional=true", "model.guidance_scale=2"]

CLASSIFIER = ["model.classifier.base_channels=2", "model.classifier.hidden=8", "data.labelled_per_class=5"]
ROUNDS = ["model.warmup_iterations=100"]
ADAPTATION = ["data=adaptation", "data.domain=inverted", "data.image_size=16", "model.body.channels=[4,6]"]

TINY: dict[str, list[str]] = {
    "acgan": WIDTHS,
    "adda": [
        *ADAPTATION,
        "model.body.num_outputs=8",
        "model.discriminator_hidden=[8]",
        "model.source_iterations=2",
    ],
    "autoencoder": [*CONV, "model.latent_dim=4", "model.mixture={components:2,num_images:64}"],
    "autoencoder_mlp": [*HIDDEN, "model.latent_dim=4", "model.mixture={components:2,num_images:64}"],
    "beta_vae": [*CONV, *FEW_SAMPLES],
    "biggan": [*WIDTHS, "data.batch_size=16", "model.latent_dim=8", "model.generator.embedding_dim=4"],
    "biggan_cifar": [*WIDTHS, "data.batch_size=32", "model.latent_dim=8"],
    "cdcgan": WIDTHS,
    "cgan": [*MLP, "model.generator.label_units=8", "model.discriminator.label_units=4"],
    "classifier": CLASSIFIER,
    "co_training": [*CLASSIFIER, *ROUNDS],
    "cyclegan": [*TRANSLATION, "data=inverted", "model.pool_size=8"],
    "cvae": [*HIDDEN, *FEW_SAMPLES],
    "dann": [*ADAPTATION, "model.classifier_hidden=[8]", "model.domain_hidden=[8]"],
    "dcgan": WIDTHS,
    "dcgan_small": WIDTHS,
    "ddim": [*DENOISING, *GUIDED, "model.schedule.name=cosine", "model.target.name=v"],
    "ddpm": [*DENOISING, "model.weight.name=min_snr"],
    "denoising_autoencoder": [*HIDDEN, "model.latent_dim=4", "model.mixture={components:2,num_images:64}"],
    "discogan": [*WIDTHS, "data=inverted"],
    "domain_classifier": [*ADAPTATION, "model.classifier_hidden=[8]"],
    "dragan": WIDTHS,
    "edm": DENOISING,
    "flow_matching": [*FLOW, "model.sampler.name=euler"],
    "gan": MLP,
    "gated_pixelcnn": [*PIXELS, "model.network.layers=2", "model.network.head_channels=8"],
    "gaussian_mixture": ["data.image_size=8", "data.labelled_per_class=5", "model.pca=6", "ema=none"],
    "improved_gan": WIDTHS,
    "infogan": [*WIDTHS, "model.generator.hidden=16", "model.discriminator.hidden=16"],
    "kl_autoencoder": FIRST_STAGES,
    "latent_diffusion": [
        "data.image_size=8",
        f"model.first_stage={KL_STAGE}",
        "model.standardize=false",
        "model.diffusion.network={channels:8,multipliers:[1],blocks:1,attention_sizes:[]}",
        "model.diffusion.sampler.steps=3",
        "model.diffusion.conditional=true",
    ],
    "lsgan": [*WIDTHS, "model.latent_dim=8"],
    "m2": [*HIDDEN, "model.classifier.hidden=[8]", "model.importance_samples=2", "data.labelled_per_class=5"],
    "ot_cfm": [*FLOW, "model.conditional=true", "model.times.name=logit_normal", "+model.sampler.tolerance=0.3"],
    "pix2pix": [*TRANSLATION, "data=edges"],
    "pixel_rnn_diagonal": [*PIXELS, "model.network.layers=1", "model.network.head_channels=8"],
    "pixel_rnn_row": [*PIXELS, "model.network.layers=1", "model.network.head_channels=8"],
    "pixelcnn": [*PIXELS, "model.network.blocks=2", "model.network.head_channels=8"],
    "pixelcnn_pp": [*PIXELS, "model.network.layers=1", "model.network.sizes=2"],
    "projection": SEVERAL_STEPS,
    "r3gan": [
        f"model.{player}.{key}" for player in ("generator", "discriminator") for key in ("width=8", "cardinality=2")
    ],
    "sagan": [*WIDTHS, "model.generator.base_channels=8", "model.discriminator.base_channels=8"],
    "self_training": [*CLASSIFIER, *ROUNDS],
    "sgan": [
        "model.generator.hidden=[12,12]",
        "model.discriminator.hidden=[16,12]",
        "data.labelled_per_class=5",
    ],
    "sgan_conv": [*WIDTHS, "data.labelled_per_class=5"],
    "sngan": SEVERAL_STEPS,
    "svm_features": [f"model.source.run={DISCRIMINATED}", "data.labelled_per_class=5", "ema=none"],
    "transfer": [
        f"model.body.run={DISCRIMINATED}",
        "model.mode=finetune",
        "model.unfreeze_every=1",
        "data.labelled_per_class=5",
    ],
    "vae": [*CONV, *FEW_SAMPLES],
    "vae_mlp": [*HIDDEN, *FEW_SAMPLES, "model.sampler=mixture"],
    "vae_resnet": ["model.encoder.base_channels=2", "model.decoder.base_channels=2", *FEW_SAMPLES],
    "vq_gan": [*FIRST_STAGES, "model.num_codes=16"],
    "vq_prior": [
        f"model.first_stage={FIRST_STAGE}",
        *(f"model.prior.network.{key}" for key in ("channels=6", "layers=2", "head_channels=8")),
    ],
    "vqvae": [
        "model.num_codes=16",
        "model.code_dim=3",
        *(
            f"model.{network}.{key}=4"
            for network in ("encoder", "decoder")
            for key in ("channels", "residual_channels")
        ),
    ],
    "wgan": [*WIDTHS, "data.batch_size=40"],
    "wgan_gp": [*WIDTHS, "data.batch_size=40"],
    "wgan_gp_resnet": SEVERAL_STEPS,
}
"""Overrides of each model."""

EVERY_MODEL = sorted(
    path.stem
    for path in (config_dir() / "model").glob("[!_]*.yaml")
    if path.stem == "dcgan_small" or not path.stem.endswith("_small")
)
"""All but the narrow variants, which are the same networks."""


def _class_of(config: str) -> type[GenerativeModel]:
    """The class of a config, or of the first that it builds on."""
    content = yaml.safe_load((config_dir() / "model" / f"{config}.yaml").read_text())
    if "_target_" in content:
        return resolve(content["_target_"], GenerativeModel)  # type: ignore[type-abstract]
    return _class_of(content["defaults"][0])


_CLASSES = {name: _class_of(name) for name in EVERY_MODEL}

ADVERSARIAL = [name for name, found in _CLASSES.items() if issubclass(found, GAN)]
"""Models with a generator and a discriminator."""

TRANSLATING = [name for name, found in _CLASSES.items() if issubclass(found, TranslationModel)]
"""Models that translate images."""

PIXEL_MODELS = [name for name, found in _CLASSES.items() if issubclass(found, PixelModel)]
"""Models of pixels given those before them."""

SAMPLERS = [name for name, found in _CLASSES.items() if issubclass(found, Samples)]
"""Those that make images by themselves."""


def tiny_config(model: str, *overrides: str) -> dict[str, Any]:
    """The config of a tiny run of ``model`` on digits or on sets made of them, without scores or pictures."""
    return compose_config(
        [
            f"model={model}",
            "metrics=none",
            "logger=none",
            "trainer=cpu",
            "trainer.max_steps=3",
            *TINY[model],
            *overrides,
        ]
    )
