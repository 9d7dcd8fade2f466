"""Losses in bits a byte of text, which compare between vocabularies."""

from collections.abc import Callable

Task = Callable[..., tuple]


def per_byte(task: Task, bytes_per_unit: float) -> Task:
    """A task that gives its metric ``bits``, where it has one, a byte of text as well.

    ``bits_per_byte`` is bits a token over bytes a token. A larger vocabulary has fewer
    tokens in the same text and more bits in each; a byte of text stays what it is.

    Args:
      task: ``(apply, batch) -> (loss, metrics)``.
      bytes_per_unit: bytes that a token stands for on average.

    Example:
      >>> task = per_byte(lambda apply, batch: (2.1, {"bits": 3.0}), 4.0)
      >>> task(None, None)
      (2.1, {'bits': 3.0, 'bits_per_byte': 0.75})
    """

    def scaled(apply, batch):
        loss, metrics = task(apply, batch)
        if "bits" in metrics:
            metrics = {**metrics, "bits_per_byte": metrics["bits"] / bytes_per_unit}
        return loss, metrics

    if hasattr(task, "weight"):
        scaled.weight = task.weight  # type: ignore[attr-defined]
    return scaled
