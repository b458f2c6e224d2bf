"""Captions as conditions: what encodes them, and how the labels of images become captions."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.conditions import Condition, Embedded
from lightning_gen.registry import construct


class TextEncoder(nn.Module, ABC):
    """Captions to a vector and a token sequence each; a subclass is an encoder.

    Attributes:
        pooled_dim: D of the vectors.
        token_dim: T of the tokens.
    """

    pooled_dim: int
    token_dim: int

    @abstractmethod
    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Numbers (N, L) int64 of the tokens of captions, padded by -1 at the end.

        Raises:
            UserError: a caption that the encoder cannot take.
        """

    @abstractmethod
    def forward(self, numbers: Tensor) -> Embedded:
        """Vectors (N, D), tokens (N, L, T) and mask (N, L) of what `tokenize` gives."""


def words(caption: str) -> list[str]:
    """The words and signs of a caption, in lower case."""
    return re.findall(r"\w+|[^\w\s]", caption.lower())


class WordEncoder(TextEncoder):
    """A small transformer over words, trained with the network; it knows the words of some captions and no others.

    Every caption begins with a token of its own, whose output is the vector; the empty caption is that token alone.

    Args:
        captions: whose words it knows.
        dim: of vectors and tokens.
        layers: of the transformer.
        heads: of its attention.
        max_words: captions may have so many.

    Raises:
        UserError: the heads do not divide ``dim``.
    """

    def __init__(
        self, captions: Sequence[str], dim: int = 64, layers: int = 1, heads: int = 4, max_words: int = 32
    ) -> None:
        super().__init__()
        if dim % heads:
            raise UserError(f"the text encoder's heads={heads} must divide its dim={dim}")
        self.pooled_dim = self.token_dim = dim
        self.max_words = max_words
        known = sorted({word for caption in captions for word in words(caption)})
        self.vocabulary = {word: number for number, word in enumerate(known, start=1)}
        self.table = nn.Embedding(1 + len(known), dim)
        self.positions = nn.Parameter(torch.empty(1 + max_words, dim))
        nn.init.normal_(self.table.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)
        layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(dim), enable_nested_tensor=False)

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Numbers (N, L) of the words, after a 0 in front."""
        rows = [[0, *(self._number(word) for word in words(caption))] for caption in captions]
        longest = max(map(len, rows)) - 1
        if longest > self.max_words:
            raise UserError(f"a caption has {longest} words, and the text encoder's max_words is {self.max_words}")
        return _padded(rows)

    def forward(self, numbers: Tensor) -> Embedded:
        """Vectors (N, D), tokens (N, L, D) and mask (N, L)."""
        mask = numbers >= 0
        tokens = self.table(numbers.clamp(min=0)) + self.positions[: numbers.shape[1]]
        tokens = self.layers(tokens, src_key_padding_mask=~mask)
        return Embedded(tokens[:, 0], tokens, mask)

    def _number(self, word: str) -> int:
        if word not in self.vocabulary:
            raise UserError(f"the text encoder does not know the word {word!r}, only: {', '.join(self.vocabulary)}")
        return self.vocabulary[word]


class CLIPEncoder(TextEncoder):
    """A text encoder of CLIP (Radford et al. 2021) as it was trained, from `transformers`.

    Vectors are the outputs at the end of the text, tokens those at all positions. The encoder stays as it is, so it is
    not kept in checkpoints, copies of the network share it, and captions are encoded once, on the CPU.

    Args:
        model: a folder with the encoder and its tokenizer, or their name on the Hugging Face hub.

    Raises:
        UserError: `transformers` or the model are not there.
    """

    def __init__(self, model: str = "openai/clip-vit-base-patch32") -> None:
        super().__init__()
        self._pretrained = _Pretrained(model)
        self.pooled_dim = self.token_dim = self._pretrained.encoder.config.hidden_size
        self._encoded: tuple[Tensor, Embedded] | None = None

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Numbers (N, L) of the tokens of captions, cut to what the encoder takes."""
        limit = self._pretrained.encoder.config.max_position_embeddings
        return _padded(self._pretrained.tokenizer(list(captions), truncation=True, max_length=limit)["input_ids"])

    def forward(self, numbers: Tensor) -> Embedded:
        """Vectors (N, D), tokens (N, L, D) and mask (N, L)."""
        if self._encoded is None or self._encoded[0] is not numbers:
            found = self._pretrained.encode(numbers.cpu())
            self._encoded = numbers, Embedded(*(part.to(numbers.device) for part in found))
        return self._encoded[1]


class _Pretrained:
    """An encoder that all copies of a network share."""

    def __init__(self, model: str) -> None:
        try:
            from transformers import AutoTokenizer, CLIPTextModel
        except ImportError as error:
            raise UserError("CLIP's texts need transformers: pip install 'lightning-gen[text]'") from error
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model)
            self.encoder = CLIPTextModel.from_pretrained(model).eval()
        except (OSError, ValueError) as error:
            raise UserError(
                f"Cannot read CLIP from {model!r}: set the text encoder's model to a folder with its files or to a "
                "name on the Hugging Face hub"
            ) from error

    def __deepcopy__(self, memo: dict[int, Any]) -> _Pretrained:
        return self

    @torch.no_grad()
    def encode(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors, tokens and mask of padded numbers (N, L)."""
        mask = numbers >= 0
        found = self.encoder(
            input_ids=numbers.where(mask, self.encoder.config.eos_token_id), attention_mask=mask.long()
        )
        return found.pooler_output, found.last_hidden_state, mask


class TextCondition(Condition):
    """Captions of labels, encoded. Label k means the k-th caption, and "no label" the empty one.

    Args:
        num_classes: K.
        dim: D of the vectors.
        class_names: of the classes.
        captions: one for each class; None for the class names.
        template: where a caption stands in its text, ``{}``.
        encoder: spec of a `TextEncoder`; None for a `WordEncoder`.

    Raises:
        UserError: captions are missing or too few.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        class_names: Sequence[str] | None = None,
        captions: Sequence[str] | None = None,
        template: str = "{}",
        encoder: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        captions = class_names if captions is None else captions
        if captions is None or len(captions) != num_classes:
            raise UserError(
                f"model.network.condition.captions must name the {num_classes} classes, not {len(captions or ())}"
            )
        self.captions = [*(template.format(caption) for caption in captions), ""]
        spec = encoder or {"_target_": f"{__name__}.WordEncoder"}
        self.encoder = construct(spec, TextEncoder, captions=self.captions)  # type: ignore[type-abstract]
        self.token_dim = self.encoder.token_dim
        self.vectors = nn.Linear(self.encoder.pooled_dim, dim)
        # No buffer: it grows, and averages of the network do not follow it.
        self._numbers = self.encoder.tokenize(self.captions)

    def labels_of(self, captions: Sequence[str]) -> Tensor:
        """Labels (N,) int64 of any captions, to be given to this network; they are not kept in checkpoints.

        Raises:
            UserError: a caption that the encoder cannot take.
        """
        new = [caption for caption in dict.fromkeys(captions) if caption not in self.captions]
        if new:
            self._numbers = self.encoder.tokenize([*self.captions, *new])
            self.captions += new
        return torch.tensor([self.captions.index(caption) for caption in captions])

    def forward(self, labels: Tensor) -> Embedded:
        """Vectors (N, D), tokens (N, L, T) and mask (N, L)."""
        # All captions, and not those of the labels alone, which a GPU would have to tell the CPU first.
        self._numbers = self._numbers.to(labels.device)
        vectors, tokens, mask = self.encoder(self._numbers)
        return Embedded(self.vectors(vectors)[labels], tokens[labels], mask[labels])


def _padded(rows: Sequence[list[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [-1] * (longest - len(row)) for row in rows])
