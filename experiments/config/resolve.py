"""Turns the names in a config into the objects they name, with errors that help.

A component of a config is a mapping ``{"name": "dotted.path", **keywords}``: any
importable callable, the user's own module included. There is no registry to join.
Among the keywords, ``{"name": ..., ...}`` is itself built first, and
``{"ref": "dotted.path"}`` stands for the object without calling it.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from gnomon.experiments.console.errors import UserError


class ConfigError(UserError):
    """A config that cannot run; the message names the field and the fix."""


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Returns ``"; did you mean 'x'?"``, or the choices when nothing is close.

    >>> did_you_mean("learning_rat", ["learning_rate", "b1"])
    "; did you mean 'learning_rate'?"
    >>> did_you_mean("zzz", ["b2", "b1"])
    '; there are: b1, b2'
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(sorted(known))}"


def resolve(path: str, field: str = "name") -> Any:
    """Imports the object a dotted path names.

    >>> resolve("optax.adamw").__name__
    'adamw'
    """
    parts = path.split(".") if isinstance(path, str) and path.isprintable() else []
    # A relative path would be looked up from gnomon's own folder, or nowhere.
    parts = parts if all(parts) else []
    for end in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:end])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # Only the path itself may be missing: an import that fails inside a
            # module that does exist is that module's own error.
            if error.name and (module_name + ".").startswith(error.name + "."):
                continue
            raise
        for part in parts[end:]:
            if not hasattr(found, part):
                names = [n for n in dir(found) if not n.startswith("_")]
                close = difflib.get_close_matches(part, names, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ConfigError(
                    f"config.{field}: {'.'.join(parts[:end])!r} has no {part!r}{hint}"
                )
            found = getattr(found, part)
        return found
    raise ConfigError(
        f"config.{field}: cannot import {path!r}; give the dotted path of an"
        " importable callable, such as 'optax.adamw'"
    )


def is_whole(value: Any, least: int) -> bool:
    """Whether a config's value is an integer, no bool, and at least ``least``.

    >>> [is_whole(value, 1) for value in (1, 0, True, 1.0)]
    [True, False, False, False]
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def signature_errors(
    function: Callable, given: Collection[str], field: str
) -> str | None:
    """Says what is wrong with the keywords ``given`` for ``function``, or None."""
    # A metaclass (Flax's is one) may hide the signature of its classes.
    called = function.__init__ if inspect.isclass(function) else function
    try:
        parameters = list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        return None
    parameters = parameters[inspect.isclass(function) :]
    keywords = {
        p.name: p
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in given:
            if name not in keywords:
                hint = did_you_mean(name, keywords)
                return f"config.{field}.{name}: unknown field{hint}"
    for name, parameter in keywords.items():
        if parameter.default is parameter.empty and name not in given:
            named = getattr(function, "__name__", "what it names")
            return f"config.{field}.{name}: missing; {named} needs it"
    return None


def check(
    spec: Mapping, field: str, provided: Mapping[str, str] = MappingProxyType({})
) -> Callable:
    """Resolves a component and checks its keywords against its signature.

    Args:
      spec: the component, ``{"name": ..., **keywords}``.
      field: where it stands in the config, for the error.
      provided: keywords the caller will add, and the field that each comes from.

    Returns:
      The callable that ``spec["name"]`` names.

    Raises:
      ConfigError: an unknown, missing or unimportable name, or a keyword that is
        given here and provided.
    """
    if "name" not in spec:
        raise ConfigError(f"config.{field}.name: missing; give a dotted path")
    function = resolve(spec["name"], f"{field}.name")
    if not callable(function):
        raise ConfigError(
            f"config.{field}.name={spec['name']!r}: a {type(function).__name__}, which"
            " cannot be called; give a function or a class"
        )
    keywords = [key for key in spec if key != "name"]
    for key in keywords:
        if key in provided:
            raise ConfigError(
                f"config.{field}.{key}={spec[key]!r}: would be ignored; it is taken"
                f" from {provided[key]}"
            )
        value = spec[key]
        if isinstance(value, Mapping) and "name" in value:
            check(value, f"{field}.{key}")
        elif isinstance(value, Mapping) and "ref" in value:
            resolve(value["ref"], f"{field}.{key}.ref")
    problem = signature_errors(function, [*keywords, *provided], field)
    if problem:
        raise ConfigError(problem)
    return function


def build(spec: Mapping, **provided: Any) -> Any:
    """Calls what a component names with its keywords, nested components first.

    >>> build({"name": "fractions.Fraction", "numerator": 3}, denominator=4)
    Fraction(3, 4)
    """
    return resolve(spec["name"])(**(arguments(spec) | provided))


def arguments(spec: Mapping) -> dict[str, Any]:
    """The keywords of a component, with what they name in place of names.

    >>> arguments({"name": "some.model", "norm": {"ref": "fractions.Fraction"}})
    {'norm': <class 'fractions.Fraction'>}
    """
    keywords = {key: value for key, value in spec.items() if key != "name"}
    for key, value in keywords.items():
        if isinstance(value, Mapping) and "name" in value:
            keywords[key] = build(value)
        elif isinstance(value, Mapping) and "ref" in value:
            keywords[key] = resolve(value["ref"])
    return keywords
