r"""How the layers of a network grow with its width, and learning rates that follow.

Two abstract trees are enough: the parameters of the model and those of the same model
at a *base* width, at which hyperparameters were tuned. Their shapes tell by what each
layer's inputs and outputs have grown, and a rule turns that into a factor of the
learning rate that is one at the base width.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import optax

from gnomon.parameters.checks import require_choice
from gnomon.parameters.paths import path_string
from gnomon.parameters.trees import is_function
from gnomon.parameters.units import Axes, Rules, resolve_axes, unit_axes

__all__ = [
    "Growth",
    "learning_rate_factors",
    "mup_rule",
    "standard_rule",
    "width_growth",
]

Role = Literal["fixed", "vector", "input", "hidden", "output"]
Kind = Literal["adam", "sgd"]
Alignment = Literal["full", "none"]
# The base: a tree of arrays or shapes, or a function of the parameters that returns it.
Base: TypeAlias = optax.Params | Callable[[optax.Params], optax.Params]


class Growth(NamedTuple):
    """By what one leaf is larger than in the base model.

    Attributes:
      role: what grows. "input": the outputs alone (a first layer, an embedding);
        "hidden": inputs and outputs; "output": the inputs alone (a readout);
        "vector": the entries of a bias or a gain; "fixed": nothing.
      fan_in: the number of inputs of a unit over that in the base model; 1 for a
        vector.
      fan_out: the number of units over that in the base model.
    """

    role: Role
    fan_in: float
    fan_out: float


Rule: TypeAlias = Callable[[Growth], float]


def width_growth(
    params: optax.Params,
    base: Base,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> Any:
    """How much each leaf has grown from the base model.

    Inputs of a kernel are the axes inside one unit (:func:`units.unit_axes`), its
    outputs all others. A row of an embedding is looked up by its number: its inputs
    are the rows, which do not grow, and its outputs the features.

    Args:
      params: a tree of arrays or ``jax.ShapeDtypeStruct``.
      base: the same for the base model, or a function of ``params`` that returns it;
        leaves are found by their paths.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves whose axis 0 runs over layers.

    Returns:
      A tree of :class:`Growth`.

    Raises:
      ValueError: if the base lacks a leaf, or has it with another rank, or empty.

    Example:
      >>> def shapes(width):
      ...     sizes = {"embed": {"embedding": (256, width)},
      ...              "up": {"kernel": (width, 4 * width), "bias": (4 * width,)},
      ...              "head": {"kernel": (4 * width, 10), "bias": (10,)}}
      ...     return jax.tree.map(lambda size: jax.ShapeDtypeStruct(size, "float32"),
      ...                         sizes, is_leaf=lambda x: isinstance(x, tuple))
      >>> growth = width_growth(shapes(64), shapes(32))
      >>> growth["embed"]["embedding"]
      Growth(role='input', fan_in=1.0, fan_out=2.0)
      >>> for layer in ("up", "head"):
      ...     print(*(f"{k}: {g.role}" for k, g in sorted(growth[layer].items())))
      bias: vector kernel: hidden
      bias: fixed kernel: output
    """
    at_base = base(params) if is_function(base) else base
    sizes = {
        path_string(path): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(at_base)
    }

    def growth(key_path: tuple[Any, ...], axes: Axes, leaf: jax.Array) -> Growth:
        path, shape = path_string(key_path), tuple(leaf.shape)
        small = sizes.get(path)
        same = small == shape
        if small is None or len(small) != len(shape) or (0 in small and not same):
            raise ValueError(
                f"base: {path!r} has shape {small} there and {shape} here; the base "
                "is the same model at another width, with the same leaves."
            )
        if same or 0 in shape:
            return Growth("fixed", 1.0, 1.0)
        inside = set(axes.reduce)
        outside = set(range(len(shape))) - inside - set(axes.stack)
        if inside and _is_embedding(path):
            inside, outside = outside, inside
        fan_in, fan_out = (
            math.prod(shape[a] for a in part) / math.prod(small[a] for a in part)
            for part in (inside, outside)
        )
        return Growth(_role(bool(axes.reduce), fan_in, fan_out), fan_in, fan_out)

    return jax.tree_util.tree_map_with_path(
        growth,
        resolve_axes(params, rules, stacked),
        params,
        is_leaf=lambda node: isinstance(node, Axes),
    )


def _is_embedding(path: str) -> bool:
    """Whether the units of a matrix of this name are its rows."""
    return unit_axes(path, (2, 2)) == (1,)


def _role(has_units: bool, fan_in: float, fan_out: float) -> Role:
    if fan_in == fan_out == 1:
        return "fixed"
    if not has_units:
        return "vector"
    if fan_in == 1:
        return "input"
    return "output" if fan_out == 1 else "hidden"


def mup_rule(kind: Kind = "adam", *, output_multiplier: bool = False) -> Rule:
    r"""Learning rates of the maximal update parameterization (muP).

    With :math:`m_{in}`, :math:`m_{out}` the growth of fan-in and fan-out:

    ========================  ====================  ========================
    layer                     Adam                  SGD
    ========================  ====================  ========================
    input, vector             1                     :math:`m_{out}`
    hidden                    :math:`1 / m_{in}`    :math:`m_{out} / m_{in}`
    output                    :math:`1 / m_{in}`    :math:`1 / m_{in}`
    output with a multiplier  1                     :math:`m_{in}`
    ========================  ====================  ========================

    The last row is for a model that multiplies its outputs by :math:`1 / m_{in}` and
    starts the readout at a variance that does not depend on width. A readout tied to
    an embedding has to be such a one, and counts as input. The row before is for a
    readout without a multiplier, which starts at variance :math:`1 / fan_{in}^2` or at
    zero (:func:`mup_initialization`). Hidden layers start at :math:`1 / fan_{in}`.

    Args:
      kind: "adam", the default, for methods whose update does not depend on the scale
        of the gradient (Adam, AdamP, Lion, ...); "sgd" for those whose update is
        proportional to it, momentum included.
      output_multiplier: whether the model divides its outputs by the growth in width.

    Returns:
      The rule, a function of a :class:`Growth`.

    Raises:
      ValueError: if ``kind`` is unknown.

    Example:
      >>> hidden = Growth("hidden", fan_in=4.0, fan_out=4.0)
      >>> mup_rule("adam")(hidden), mup_rule("sgd")(hidden)
      (0.25, 1.0)

    References:
      Yang et al., Tensor Programs V: Tuning Large Neural Networks via Zero-Shot
      Hyperparameter Transfer, 2022 (https://arxiv.org/abs/2203.03466): table 3, and
      with the multiplier table 8.
      Yang, Simon & Bernstein, A Spectral Condition for Feature Learning, 2023
      (https://arxiv.org/abs/2310.17813): hidden layers that grow unevenly under SGD.
    """
    require_choice("kind", kind, Kind)

    def rule(growth: Growth) -> float:
        if growth.role == "output" and output_multiplier:
            return 1.0 if kind == "adam" else growth.fan_in
        if kind == "adam":
            return 1 / growth.fan_in
        return growth.fan_out / growth.fan_in

    return rule


def standard_rule(kind: Kind = "adam", *, alignment: Alignment = "full") -> Rule:
    r"""Learning rates of each layer under standard parameterization.

    Every layer, the readout included, starts at variance :math:`1 / fan_{in}` and
    there are no multipliers, as networks usually come. With :math:`m` the growth of
    the layer in width:

    ======================  ================  ==================  ================
    rate of                 input, vector     hidden              output
    ======================  ================  ==================  ================
    Adam, full alignment    1                 :math:`1/m`         :math:`1/m`
    Adam, none              1                 :math:`1/\sqrt m`   :math:`1/\sqrt m`
    SGD, full alignment     :math:`\sqrt m`   :math:`1/\sqrt m`   :math:`1/m`
    SGD, none               :math:`\sqrt m`   1                   :math:`1/\sqrt m`
    ======================  ================  ==================  ================

    A sum over :math:`m` times as many inputs grows with :math:`m` if the layer's
    change is aligned with what comes in, and with :math:`\sqrt m` if not; gradients
    below a readout of variance :math:`1 / fan_{in}` shrink with :math:`\sqrt m`, which
    Adam does not see. Changes of the features are taken as not aligned with that first
    readout; as far as they are, outputs grow by up to :math:`\sqrt m`.

    Args:
      kind: "adam" or "sgd", see :func:`mup_rule`.
      alignment: "full", the default, the safe assumption, or "none".

    Returns:
      The rule, a function of a :class:`Growth`.

    Raises:
      ValueError: if ``kind`` or ``alignment`` is unknown.

    Example:
      >>> standard_rule("adam")(Growth("output", fan_in=4.0, fan_out=1.0))
      0.25

    References:
      Everett et al., Scaling Exponents Across Parameterizations and Optimizers, 2024
      (https://arxiv.org/abs/2407.05872)
    """
    require_choice("kind", kind, Kind)
    require_choice("alignment", alignment, Alignment)

    def rule(growth: Growth) -> float:
        if growth.role in ("input", "vector"):
            return math.sqrt(growth.fan_out) if kind == "sgd" else 1.0
        total = growth.fan_in if alignment == "full" else math.sqrt(growth.fan_in)
        if kind == "sgd" and growth.role == "hidden":
            return math.sqrt(growth.fan_in) / total
        return 1 / total

    return rule


def learning_rate_factors(
    params: optax.Params,
    base: Base,
    rule: Rule,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> Any:
    """What each leaf's learning rate is multiplied by.

    Args:
      params: a tree of arrays or ``jax.ShapeDtypeStruct``.
      base: the same for the base model, see :func:`width_growth`.
      rule: from :func:`mup_rule` or :func:`standard_rule`, or a function of one's own.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves whose axis 0 runs over layers.

    Returns:
      A tree of Python floats; 1.0 for leaves that have not grown.

    Example:
      >>> wide = {"kernel": jax.ShapeDtypeStruct((64, 64), "float32")}
      >>> base = {"kernel": jax.ShapeDtypeStruct((16, 16), "float32")}
      >>> learning_rate_factors(wide, base, mup_rule("adam"))
      {'kernel': 0.25}
    """
    return jax.tree.map(
        lambda growth: 1.0 if growth.role == "fixed" else float(rule(growth)),
        width_growth(params, base, rules, stacked),
        is_leaf=lambda node: isinstance(node, Growth),
    )
