"""The first sixth of the default run learns digits; docs/results.md has the whole of it at three seeds."""

from __future__ import annotations

import torch

from lightning_gen.callbacks.scores import evaluate_model
from lightning_gen.configuration import compose_config
from lightning_gen.training import build_parts, train


def test_scores_fall_to_a_tenth_of_the_untrained_generators() -> None:
    config = compose_config(["logger=none", "trainer.max_steps=500", "callbacks.interpolation=null"])
    torch.manual_seed(config["seed"])
    parts = build_parts(config)
    assert parts.evaluator is not None
    parts.evaluator.set_reference("digits", parts.data.reference_set("test").images)
    with parts.model.evaluation():
        untrained = evaluate_model(parts.evaluator, parts.model)[0]
    record = train(config)
    assert record is not None
    trained = record["scores"][0]
    assert trained["protocol_hash"] == untrained.protocol_hash
    assert trained["value"] <= 0.1 * untrained.value
