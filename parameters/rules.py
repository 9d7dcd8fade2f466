"""Ordered rules over the leaves of parameters: the first that fits a leaf decides.

A rule is a regex that is found in a leaf's path, or ``role:NAME`` for what the leaf is
for (`gnomon.parameters.roles`): embedding, hidden, head, gain or bias. The empty regex
fits every leaf. Of stacked layers a regex may be written for the names of the stack, or
for those of the layers one by one, and decides for all of them alike.
"""

import difflib
import re
import typing
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

from gnomon.parameters.paths import path_string
from gnomon.parameters.roles import Kind, Role, roles, warn_of_guesses
from gnomon.parameters.stacks import matches

ROLE = "role:"
ROLES: tuple[str, ...] = typing.get_args(Kind)
SHOWN = 8  # paths that an error names before it stops


def check_rule(rule: Any, name: str) -> None:
    """Refuses what is no rule.

    Args:
      rule: the rule.
      name: where it stands, for the message.

    Raises:
      ValueError: it is no text, no regex, or names no role.

    Example:
      >>> check_rule("role:bais", "groups")
      Traceback (most recent call last):
        ...
      ValueError: groups: there is no 'role:bais'; did you mean 'role:bias'?
    """
    if not isinstance(rule, str):
        raise ValueError(f"{name}: {rule!r} is no regex and no {ROLE}NAME.")
    if rule.startswith(ROLE):
        if rule.removeprefix(ROLE) not in ROLES:
            known = [ROLE + role for role in ROLES]
            close = difflib.get_close_matches(rule, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"{', '.join(known)}."
            raise ValueError(f"{name}: there is no {rule!r}; {hint}")
        return
    try:
        re.compile(rule)
    except re.error as error:
        raise ValueError(f"{name}: {rule!r} is not a regex ({error}).") from error


def deciding(
    params: optax.Params, rules: Sequence[str], name: str, stacked: str | None = None
) -> Any:
    """Which rule decides for each leaf.

    Args:
      params: a tree of arrays or shapes.
      rules: in order; each decides for a leaf at least, and every leaf is covered.
      name: the argument's name, for messages.
      stacked: regex of further leaves that stack layers along axis 0.

    Returns:
      A tree with the structure of ``params`` and the position of a rule for each leaf.

    Raises:
      ValueError: a leaf that no rule fits, with the rule that is closest; a rule that
        fits no leaf, or none that is left to it.

    Example:
      >>> params = {"embed": np.ones((4, 2)), "mlp": {"bias": np.ones(3)}}
      >>> deciding(params, ["role:bias", ""], "groups")
      {'embed': 1, 'mlp': {'bias': 0}}
      >>> deciding(params, ["^embde"], "groups")
      Traceback (most recent call last):
        ...
      ValueError: groups: no rule covers 'embed', 'mlp/bias'; the closest to 'embed' is
      '^embde'. End with '' to cover the rest.
    """
    paths, structure, fits = _fits(params, rules, name, stacked)
    if not paths:  # a placeholder, or all leaves masked
        return params
    first = [row.index(True) if True in row else -1 for row in fits]
    bare = [path for path, at in zip(paths, first, strict=True) if at < 0]
    if bare:
        said = f"{name}: no rule covers {_listed(bare)}"
        if rules:
            said += f"; the closest to {bare[0]!r} is {_closest(bare[0], rules)!r}"
        raise ValueError(f"{said}. End with '' to cover the rest.")
    _used(rules, fits, paths, name)
    for at, rule in enumerate(rules):
        if at not in first:
            raise ValueError(
                f"{name}: the rule {rule!r} decides nothing, because rules before it"
                " take all that it fits; put it before them."
            )
    return jax.tree.unflatten(structure, first)


def fitting(
    params: optax.Params, rules: Sequence[str], name: str, stacked: str | None = None
) -> Any:
    """Whether any of several rules fits a leaf.

    Args:
      params: a tree of arrays or shapes.
      rules: each fits a leaf at least.
      name: the argument's name, for messages; empty where ``params`` may be a part of
        the parameters that some rules are not about.
      stacked: regex of further leaves that stack layers along axis 0.

    Returns:
      A tree with the structure of ``params`` and one bool a leaf.

    Raises:
      ValueError: a rule that fits no leaf.

    Example:
      >>> params = {"norm": {"scale": np.ones(3)}, "mlp": {"kernel": np.ones((3, 3))}}
      >>> fitting(params, ["role:hidden"], "decay_mask")
      {'mlp': {'kernel': True}, 'norm': {'scale': False}}
    """
    paths, structure, fits = _fits(params, rules, name or "rules", stacked)
    if name and paths:
        _used(rules, fits, paths, name)
    return jax.tree.unflatten(structure, [any(row) for row in fits])


def _fits(
    params: Any, rules: Sequence[str], name: str, stacked: str | None
) -> tuple[list[str], Any, list[list[bool]]]:
    """The paths of the leaves, the structure, and for each leaf which rules fit."""
    for rule in rules:
        check_rule(rule, name)
    structure = jax.tree.structure(params)
    leaves = [
        (path_string(path), np.shape(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]
    kinds: list[Role] = []
    if any(rule.startswith(ROLE) for rule in rules) and leaves:
        found = roles(params, stacked=stacked)
        warn_of_guesses(found, name, "name the leaves by regexes")
        kinds = jax.tree.leaves(found, is_leaf=lambda node: isinstance(node, Role))

    def fits(number: int, rule: str) -> bool:
        if rule.startswith(ROLE):
            return kinds[number].role == rule.removeprefix(ROLE)
        return matches(rule, *leaves[number], stacked)

    rows = [[fits(number, rule) for rule in rules] for number in range(len(leaves))]
    return [path for path, _ in leaves], structure, rows


def _used(
    rules: Sequence[str], fits: list[list[bool]], paths: list[str], name: str
) -> None:
    for at, rule in enumerate(rules):
        if not any(row[at] for row in fits):
            raise ValueError(
                f"{name}: the rule {rule!r} fits no parameter. Paths: {_listed(paths)}."
            )


def _listed(paths: Sequence[str]) -> str:
    more = len(paths) - SHOWN
    shown = ", ".join(map(repr, paths[:SHOWN]))
    return shown + (f" and {more} more" if more > 0 else "")


def _closest(path: str, rules: Sequence[str]) -> str:
    return max(rules, key=lambda r: difflib.SequenceMatcher(None, path, r).ratio())
