"""Windows of tokens that lie on disk, read when a batch asks for them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.data.shards import Shard


class Span(NamedTuple):
    """The tokens of a shard from ``start`` up to ``stop``."""

    shard: Shard
    start: int
    stop: int


class Windows:
    """Examples of ``length + 1`` tokens, one after another through spans of shards.

    Window i of a span holds its tokens ``[i * length, i * length + length]``, both ends
    included, as `gnomon.experiments.data.text.windows` cuts a text: each token of a
    span but its first is a target exactly once, up to a remainder at its end. No window
    crosses from one span into another; one may cross from a document into the next.

    It is an array [n, length + 1] of which only rows can be asked for.

    Args:
      spans: what to cut; those too short for a window have none.
      length: inputs a window has.
      vocabulary: all tokens must be below it.
    """

    def __init__(self, spans: Sequence[Span], length: int, vocabulary: int) -> None:
        self._spans, self._length, self._vocabulary = spans, length, vocabulary
        counts = [max(0, span.stop - span.start - 1) // length for span in spans]
        # The number of the first window of each span, and of all windows.
        self._firsts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.shape = (int(self._firsts[-1]), length + 1)
        self.dtype = spans[0].shard.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Reads windows.

        Args:
          indices: integers of any shape, from 0 up to the number of windows.

        Returns:
          [*indices.shape, length + 1], a new array.

        Raises:
          IndexError: an index out of range, or no integer.
          ConfigError: a token outside of the vocabulary; names its shard.
        """
        chosen = np.asarray(indices)
        if chosen.dtype.kind not in "iu":
            raise IndexError(f"windows are chosen by integers, not by {indices!r}")
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"there are {len(self)} windows; asked for {indices!r}")
        flat = chosen.ravel()
        result = np.empty((flat.size, self.shape[1]), self.dtype)
        places = np.searchsorted(self._firsts, flat, side="right") - 1
        for row, (index, place) in enumerate(zip(flat, places, strict=True)):
            shard, start, _ = self._spans[place]
            at = start + int(index - self._firsts[place]) * self._length
            result[row] = shard.read(at, at + self.shape[1])
        if result.size and result.max() >= self._vocabulary:
            row = int(np.argmax(result.max(axis=1)))
            check(result[row], self._vocabulary, self._spans[places[row]].shard)
        return result.reshape(*chosen.shape, self.shape[1])


def check(tokens: np.ndarray, vocabulary: int, shard: Shard) -> None:
    """Refuses tokens of a shard that are outside of the vocabulary.

    Raises:
      ConfigError: names the shard and the token.
    """
    if tokens.size and (largest := int(tokens.max())) >= vocabulary:
        raise ConfigError(
            f"{shard.path} holds the token {largest}, which is outside of the"
            f" vocabulary of {vocabulary}; config.data.vocabulary says how many tokens"
            f" there are, and {shard.dtype.name} is how one was read"
        )
