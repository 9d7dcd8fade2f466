"""A random permutation that is computed index by index, and never stored."""

import numpy as np

_ROUNDS = 8


class Shuffle:
    """A permutation of ``range(count)``, any slice of which is computed when asked for.

    A position is cut into two halves of h bits, which a Feistel network of eight
    rounds mixes: (a, b) becomes (b, a xor F(b, key)), a permutation of the 4^h
    positions whatever F is. What lands at ``count`` or above goes through the network
    again until it lands below (cycle walking), which leaves a permutation of
    ``range(count)``. It takes the memory of the slice alone.

    Written here because grain's own shuffle by index is called once for each, which for
    a batch of 512 takes twenty times as long, and has no more than 2^32 of them.

    Args:
      count: how many positions there are.
      generator: draws the keys, on which alone the permutation depends.

    Example:
      >>> shuffle = Shuffle(10, np.random.default_rng(0))
      >>> sorted(shuffle[0:10].tolist()) == list(range(10))
      True
      >>> shuffle[3:5].tolist() == shuffle[0:10].tolist()[3:5]
      True

    References:
      Black, J., Rogaway, P. (2002). Ciphers with arbitrary finite domains. CT-RSA.
    """

    def __init__(self, count: int, generator: np.random.Generator) -> None:
        self._count = count
        half = max(1, -(-(count - 1).bit_length() // 2))
        self._half, self._mask = np.uint64(half), np.uint64(2**half - 1)
        self._keys = generator.integers(2**64, size=_ROUNDS, dtype=np.uint64)

    def __getitem__(self, positions: slice) -> np.ndarray:
        """Returns what lies at the positions, int64, as indexing an array would."""
        asked = np.arange(*positions.indices(self._count))
        values = self._mix(asked.astype(np.uint64))
        while np.any(outside := values >= self._count):
            values[outside] = self._mix(values[outside])
        return values.astype(np.int64)

    def _mix(self, values: np.ndarray) -> np.ndarray:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_scramble(right + key) & self._mask)
        return (left << self._half) | right


def _scramble(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64: every bit of the result hangs on every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
