"""Which way a metric is better: what is compared is smaller when it is better.

Tuning, speedups, curves and laws read a loss. An accuracy is compared as its error,
``1 - accuracy``, which is there wherever a run recorded an accuracy: beside
``validation_accuracy`` there is ``validation_error``. Any other metric that is better
when larger, as its name tells, is read as a loss only where its task records one.
"""

from collections.abc import Collection, Mapping
from typing import Any

LARGER = frozenset(
    (
        *("accuracy", "acc", "auc", "auroc", "bleu", "f1", "iou", "ndcg", "precision"),
        *("psnr", "recall", "reward", "rouge", "ssim", "throughput"),
    )
)
TURNED = frozenset(("negative", "neg", "minus", "error", "loss"))  # say it is a loss
_ACCURACY, _ERROR = "accuracy", "error"


def error_of(name: str) -> str | None:
    """The name of the error that belongs to an accuracy, None for another metric.

    >>> error_of("validation_accuracy"), error_of("validation_loss")
    ('validation_error', None)
    """
    if name == _ACCURACY or name.endswith(f"_{_ACCURACY}"):
        return name.removesuffix(_ACCURACY) + _ERROR
    return None


def with_errors(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics, and the error of each accuracy that has none recorded.

    >>> with_errors({"validation_accuracy": 0.75})
    {'validation_accuracy': 0.75, 'validation_error': 0.25}
    """
    found = {error_of(name): name for name in metrics}
    return dict(metrics) | {
        error: 1.0 - metrics[name]
        for error, name in found.items()
        if error is not None and error not in metrics
    }


def names_with_errors(names: Collection[str]) -> list[str]:
    """The names of `with_errors`."""
    return list(with_errors(dict.fromkeys(names, 0.0)))


def why_not(metric: str) -> str | None:
    """Why a metric cannot be compared, with the fix; None where it can.

    >>> why_not("validation_loss"), why_not("validation_negative_reward")
    (None, None)
    >>> why_not("validation_accuracy")
    'larger is better, and the smallest is sought; compare validation_error, 1 - it'
    """
    words = set(metric.lower().split("_"))
    if not words & LARGER or words & TURNED:
        return None
    fix = error_of(metric)
    if fix is None:
        fix = "what the task records as its negative, such as negative_reward"
    else:
        fix += ", 1 - it"
    return f"larger is better, and the smallest is sought; compare {fix}"
