"""Terms and transformations that combine with any GAN: `lightning_gen.regularizers.base` says what one is."""

from lightning_gen.regularizers.base import Players, Regularizer, Step, build_regularizers, regularizers

__all__ = ["Players", "Regularizer", "Step", "build_regularizers", "regularizers"]
