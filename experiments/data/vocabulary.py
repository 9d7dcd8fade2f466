"""From text to token ids: bytes, or a tokenizer of the library ``tokenizers``."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gnomon.experiments.console.errors import UserError
from gnomon.experiments.data.documents import Piece

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"


class Vocabulary(Protocol):
    """What turns text into tokens.

    Attributes:
      size: how many tokens there are.
      end_of_text: the token that ends a document, below ``size``.
    """

    size: int
    end_of_text: int

    def encode(self, pieces: Sequence[Piece]) -> list[np.ndarray]:
        """Returns the tokens of each piece, without an end of text."""


class Bytes:
    """Every byte is its own token; token 256 ends a document."""

    size = 257
    end_of_text = 256

    def encode(self, pieces: Sequence[Piece]) -> list[np.ndarray]:
        """As `Vocabulary` says."""
        return [np.frombuffer(piece.text, np.uint8) for piece in pieces]


class Library:
    """A tokenizer of the library ``tokenizers``, which uses all cores.

    Text that spells a special token is text like any other, and nothing is added,
    padded or cut off.

    Args:
      tokenizer: the tokenizer.
      end_of_text: the token that ends a document, as text.
      strict: whether to refuse what is not UTF-8, rather than replace it by U+FFFD.

    Raises:
      UserError: the tokenizer has no such token.
    """

    def __init__(
        self, tokenizer: "tokenizers.Tokenizer", end_of_text: str, strict: bool = True
    ) -> None:
        found = tokenizer.token_to_id(end_of_text)
        if found is None:
            special = tokenizer.get_added_tokens_decoder().values()
            raise UserError(
                f"the tokenizer has no token {end_of_text!r} to end a document;"
                " --end_of_text names another, such as one of"
                f" {', '.join(token.content for token in special) or 'its words'}"
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        self.tokenizer = tokenizer
        # Ids may have gaps, and a vocabulary must hold the largest.
        self.size = max(tokenizer.get_vocab().values()) + 1
        self.end_of_text = found
        self._strict = strict

    def encode(self, pieces: Sequence[Piece]) -> list[np.ndarray]:
        """As `Vocabulary` says."""
        found = self.tokenizer.encode_batch_fast(
            [decoded(piece, self._strict) for piece in pieces], add_special_tokens=False
        )
        return [np.array(encoding.ids, np.uint32) for encoding in found]


def decoded(piece: Piece, strict: bool) -> str:
    """The text of a piece.

    Raises:
      UserError: it is not UTF-8; names the file and the byte.
    """
    try:
        return piece.text.decode(errors="strict" if strict else "replace")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{piece.file} is not UTF-8 at byte {piece.begins + error.start};"
            " --errors=replace takes U+FFFD for what is not"
        ) from error


def asked_size(name: str) -> int | None:
    """The size that ``bpe:VOCAB`` asks for; None if the name is another.

    Raises:
      UserError: a size that is too small for the 256 bytes and the end of text.

    Example:
      >>> asked_size("bpe:4096"), asked_size("bpe.json")
      (4096, None)
    """
    found = re.fullmatch(r"bpe:(\d+)", name)
    if found is None:
        return None
    size = int(found[1])
    if size < 257:
        raise UserError(
            f"--tokenizer={name}: a vocabulary holds 256 bytes and an end of text, at"
            " least 257 tokens"
        )
    return size


def train_bpe(texts: Iterable[str], size: int) -> "tokenizers.Tokenizer":
    """Trains a byte-level BPE, split into words as GPT-2 does; its token 0 ends a text.

    Args:
      texts: what to train on.
      size: the size of the vocabulary, which a small text does not fill.

    References:
      Sennrich, R., Haddow, B., Birch, A. (2016). Neural Machine Translation of Rare
      Words with Subword Units. ACL. Radford, A. et al. (2019). Language Models are
      Unsupervised Multitask Learners.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read(file: Path) -> str:
    """Reads a tokenizer's file, such as the ``tokenizer.json`` of a published model.

    Raises:
      UserError: there is no such file.
    """
    try:
        return file.expanduser().read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(
            f"--tokenizer={file}: no such file; give byte, bpe:SIZE, or a"
            " tokenizer.json"
        ) from error


def load(file: Path) -> "tokenizers.Tokenizer":
    """Makes the tokenizer of a file.

    Raises:
      UserError: it is no tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(read(file))
    except Exception as error:  # the library's own have no class
        raise UserError(f"{file} is no tokenizer: {error}") from error
