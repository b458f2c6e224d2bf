"""What models that are told the class need of the data."""

from __future__ import annotations

from lightning_gen.errors import UserError


def check_conditional(num_classes: int, labelled_per_class: int | None) -> None:
    """Refuse ``model.conditional=true`` on data without (all) labels.

    Args:
        num_classes: K of the data, 0 for a set without classes.
        labelled_per_class: how many images of each class keep their label, None for all.

    Raises:
        UserError: naming the remedy.
    """
    if not num_classes:
        raise UserError("model.conditional=true needs labels, and the data set has no classes: set it to false")
    if labelled_per_class is not None:
        raise UserError(
            f"model.conditional=true needs the label of every image, and {labelled_per_class} of each class have one: "
            "set data.labelled_per_class to null"
        )
