import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.networks.dit import DiT
from lightning_gen.networks.text import CLIPEncoder, TextCondition, WordEncoder, words
from lightning_gen.networks.unet import UNet

NAMES = ("zero", "one", "a two")
TEXT = {"_target_": "lightning_gen.networks.text.TextCondition"}


def condition(**options: Any) -> TextCondition:
    torch.manual_seed(0)
    return TextCondition(3, 12, NAMES, **options).eval()


def text_unet() -> UNet:
    torch.manual_seed(0)
    network = UNet(
        (1, 8, 8),
        num_classes=3,
        class_names=NAMES,
        channels=8,
        multipliers=(1, 1),
        blocks=1,
        attention_sizes=(4,),
        condition=TEXT,
        cross_attention=True,
    )
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CLIP text encoder of random weights whose tokens are letters."""
    from tokenizers import Tokenizer, models, processors
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    vocabulary = {letter: number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz ")}
    vocabulary |= {"<start>": 27, "<end>": 28}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 27), ("<end>", 28)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<start>", eos_token="<end>", pad_token="<end>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=29,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=10,
        bos_token_id=27,
        eos_token_id=28,
    )
    CLIPTextModel(config).save_pretrained(folder)
    return folder


def test_words_and_signs_are_told_apart_whatever_their_case() -> None:
    assert words("A photo of a T-shirt, red") == ["a", "photo", "of", "a", "t", "-", "shirt", ",", "red"]
    assert words("") == []


def test_tokens_are_words_after_one_that_begins() -> None:
    encoder = WordEncoder(["one two", "three"])
    # in the alphabet's order from 1: one, three, two
    assert encoder.tokenize(["two", "", "one Three"]).tolist() == [[0, 3, -1], [0, -1, -1], [0, 1, 2]]


def test_a_caption_is_encoded_the_same_alone_and_beside_longer_ones() -> None:
    torch.manual_seed(0)
    encoder = WordEncoder(["a b c"]).eval()
    for training in (False, True):
        encoder.train(training)
        together = encoder(encoder.tokenize(["b", "", "c a b"]))
        alone = encoder(encoder.tokenize(["b"]))
        torch.testing.assert_close(together.vectors[:1], alone.vectors, rtol=0, atol=1e-5)
        torch.testing.assert_close(together.tokens[:1, :2], alone.tokens, rtol=0, atol=1e-5)
        assert together.mask.tolist() == [[True, True, False, False], [True, False, False, False], [True] * 4]


def test_the_order_of_words_matters() -> None:
    torch.manual_seed(0)
    encoder = WordEncoder(["a b"])
    vectors = encoder(encoder.tokenize(["a b", "b a"])).vectors
    assert (vectors[0] - vectors[1]).abs().max() > 1e-4


def test_labels_are_their_captions_and_the_last_is_the_empty_one() -> None:
    found = condition(template="the number {}")
    assert found.captions == ["the number zero", "the number one", "the number a two", ""]
    embedded = found(torch.tensor([2, 3, 0]))
    encoded = found.encoder(found.encoder.tokenize(["the number a two", "", "the number zero"]))
    torch.testing.assert_close(embedded.vectors, found.vectors(encoded.vectors), rtol=0, atol=1e-6)
    torch.testing.assert_close(embedded.tokens, encoded.tokens, rtol=0, atol=1e-6)
    assert torch.equal(embedded.mask, encoded.mask)


def test_free_texts_get_labels_of_their_own() -> None:
    found = condition()
    before = found(torch.tensor([0, 3]))
    assert found.labels_of(["one", "a one two a", "", "one zero", "a one two a"]).tolist() == [1, 4, 3, 5, 4]
    vectors = found(torch.tensor([4])).vectors
    encoded = found.encoder(found.encoder.tokenize(["a one two a"]))
    torch.testing.assert_close(vectors, found.vectors(encoded.vectors), rtol=0, atol=1e-6)
    torch.testing.assert_close(found(torch.tensor([0, 3])).vectors, before.vectors, rtol=0, atol=1e-6)
    other = condition()
    other.load_state_dict(found.state_dict())
    assert len(other.captions) == 4


def test_an_unknown_word_leaves_everything_as_it_was() -> None:
    found = condition()
    with pytest.raises(UserError, match="does not know the word 'three', only: a, one, two, zero"):
        found.labels_of(["one a", "three"])
    assert found.captions == [*NAMES, ""]


def test_a_u_net_draws_by_texts_and_sees_their_tokens() -> None:
    network = text_unet()
    condition = network.condition
    assert isinstance(condition, TextCondition)
    images, levels = torch.randn(1, 1, 8, 8), torch.zeros(1)
    labels = condition.labels_of(["two a", "a two", "one"])
    with torch.no_grad():
        found = torch.cat([network(images, levels, label[None]) for label in labels])
        together = network(images.expand(3, -1, -1, -1), levels.expand(3), labels)
        condition.vectors.weight.zero_()
        by_tokens = torch.cat([network(images, levels, label[None]) for label in labels])
    torch.testing.assert_close(together, found, rtol=1e-4, atol=1e-4)
    for images_of_texts in (found, by_tokens):
        assert torch.pdist(images_of_texts.flatten(1)).min() > 1e-3


def test_a_transformer_takes_texts_too() -> None:
    network = DiT((1, 8, 8), 3, NAMES, dim=16, layers=1, heads=2, condition=TEXT)
    assert isinstance(network.condition, TextCondition)
    assert network(torch.randn(2, 1, 8, 8), torch.zeros(2), torch.tensor([3, 1])).shape == (2, 1, 8, 8)


def test_clip_gives_what_transformers_gives(clip: Path) -> None:
    from transformers import CLIPTextModel

    encoder = CLIPEncoder(str(clip))
    numbers = encoder.tokenize(["cat", "", "a long caption"])
    assert numbers[0].tolist() == [27, 2, 0, 19, 28, -1, -1, -1, -1, -1]
    assert numbers[1, :3].tolist() == [27, 28, -1]
    assert numbers.shape == (3, 10), "cut"
    found = encoder(numbers)
    model = CLIPTextModel.from_pretrained(clip).eval()
    for row, length in ((0, 5), (1, 2), (2, 10)):
        with torch.no_grad():
            expected = model(input_ids=numbers[row : row + 1, :length])
        torch.testing.assert_close(found.vectors[row], expected.pooler_output[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.tokens[row, :length], expected.last_hidden_state[0], rtol=0, atol=1e-5)
        assert found.mask[row].sum() == length


def test_clip_is_not_trained_nor_kept_nor_copied(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"_target_": "lightning_gen.networks.text.CLIPEncoder", "model": str(clip)}
    found = TextCondition(2, 8, ("cat", "dog"), encoder=spec)
    assert [name for name, _ in found.named_parameters()] == ["vectors.weight", "vectors.bias"]
    assert list(found.state_dict()) == ["vectors.weight", "vectors.bias"]
    copied = copy.deepcopy(found)
    assert isinstance(found.encoder, CLIPEncoder)
    assert copied.encoder._pretrained is found.encoder._pretrained
    calls = []
    original = found.encoder._pretrained.encode
    monkeypatch.setattr(
        found.encoder._pretrained, "encode", lambda numbers: (calls.append(len(numbers)), original(numbers))[1]
    )
    for _ in range(3):
        first = found(torch.tensor([0, 1, 2]))
    label = found.labels_of(["cat and dog"])
    assert (found(label).vectors - first.vectors).abs().min(1).values.max() > 0
    assert calls == [3, 4], "captions are encoded once, and again when there are more"


def test_clip_needs_transformers_and_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip_text_model"}))
    with pytest.raises(UserError, match="Cannot read CLIP from"):
        CLIPEncoder(str(tmp_path))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'lightning-gen\[text\]'"):
        CLIPEncoder(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captions": ["one"]}, "captions must name the 3 classes, not 1"),
        ({"class_names": None}, "captions must name the 3 classes, not 0"),
        ({"encoder": {"_target_": "lightning_gen.networks.text.WordEncoder", "heads": 3}}, "must divide its dim=64"),
        ({"encoder": {"_target_": "lightning_gen.networks.text.WordEncoder", "max_words": 1}}, "has 2 words"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TextCondition(**{"num_classes": 3, "dim": 8, "class_names": NAMES, **options})
