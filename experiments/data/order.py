"""The order in which a run sees its examples, resumable at any batch."""

import functools
from collections.abc import Mapping

import numpy as np

from gnomon.experiments.data.shuffle import Shuffle

_EPOCHS = 2**31  # more than a run can reach; grain counts in a finite range


class Order:
    """Batches of example indices, reshuffled every epoch, without end.

    The stream of indices is one random permutation of the examples after another,
    and batch k is its k-th piece. Nothing is dropped: when the batch does not divide
    the number of examples, the last batch of an epoch is filled up with the first
    examples of the next. A batch is a pure function of (examples, batch, seed, k),
    which is why resuming is exact and why no thread reads ahead.

    The pipeline is grain's, over epochs: epoch e is mapped to a permutation drawn
    from the generator that grain gives element e. grain's ``shuffle`` permutes index
    by index, which for a batch of 128 of a few thousand examples takes 3 ms, longer
    than a training step; a permutation at once is a hundred times faster, for the
    memory of at most two of them. Examples that are themselves not in memory have
    permutations that are not either: `gnomon.experiments.data.shuffle.Shuffle`.

    Args:
      examples: how many examples there are.
      batch: how many indices a batch has, at most ``examples``.
      seed: of the permutations, in [0, 2**32).
      stored: whether permutations are kept in memory, 8 bytes an example; the same
        arguments give another order with it than without.

    Raises:
      ValueError: an argument out of its range.

    Example:
      >>> order = Order(examples=5, batch=2, seed=0)
      >>> epoch = np.concatenate([order.next() for _ in range(5)])
      >>> sorted(epoch[:5].tolist()), sorted(epoch[5:].tolist())
      ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
      >>> order.get_state()
      {'examples': 5, 'batch': 2, 'seed': 0, 'next_batch': 5}
    """

    def __init__(
        self, examples: int, batch: int, seed: int, *, stored: bool = True
    ) -> None:
        if not 1 <= batch <= examples:
            raise ValueError(
                f"batch={batch} must be at least 1 and at most the number of examples,"
                f" which is {examples}"
            )
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed={seed} must be in [0, 2**32)")
        # Imported here because it takes a second, which a dry run need not pay.
        import grain

        def permutation(
            epoch: int, generator: np.random.Generator
        ) -> np.ndarray | Shuffle:
            if stored:
                return generator.permutation(examples)
            return Shuffle(examples, generator)

        epochs = grain.MapDataset.range(_EPOCHS).seed(seed).random_map(permutation)
        # Two, because a batch can reach over the end of an epoch.
        self._epoch = functools.lru_cache(maxsize=2)(epochs.__getitem__)
        self._identity = {"examples": examples, "batch": batch, "seed": seed}
        if not stored:
            self._identity["stored"] = 0
        self._next = 0

    def next(self) -> np.ndarray:
        """Returns the next batch, int64 [batch]."""
        examples, batch = self._identity["examples"], self._identity["batch"]
        epoch, start = divmod(self._next * batch, examples)
        indices = self._epoch(epoch)[start : start + batch]
        if len(indices) < batch:
            rest = self._epoch(epoch + 1)[: batch - len(indices)]
            indices = np.concatenate([indices, rest])
        self._next += 1
        return indices.astype(np.int64)  # a copy: the permutation stays as drawn

    def get_state(self) -> dict[str, int]:
        """Returns the position, as integers that JSON can hold."""
        return {**self._identity, "next_batch": self._next}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Goes to a position that `get_state` gave.

        Args:
          state: the position, of an order with the same arguments.

        Raises:
          ValueError: the state belongs to another order.
        """
        for name in {**self._identity, **state}.keys() - {"next_batch"}:
            saved, mine = state.get(name), self._identity.get(name)
            if saved != mine:
                raise ValueError(
                    f"the saved data order has {name}={saved}, this run has"
                    f" {name}={mine}: resume with the {name} of the saved run"
                )
        self._next = int(state["next_batch"])
