"""Which implementation of an operation runs, and why.

Every operation of this room has a definition in plain JAX, ``xla``, and may have a
Pallas kernel for ``tpu`` and for ``gpu``. A kernel is the default only where it has
been measured to beat what XLA makes of the definition.
"""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels.engine.sizes import Gpu, Tpu, sized

Implementation = Literal["xla", "tpu", "gpu"] | Tpu | Gpu

# Operation -> platforms where its kernel was measured faster than XLA, on hardware.
# An entry belongs here only beside its row in benchmarks/results.
FASTER_THAN_XLA: Mapping[str, frozenset[str]] = {}

# plgpu.kernel took its present form, with out_type, in this version.
GPU_NEEDS_JAX = (0, 11)


# What runs a program, see :mod:`gnomon.kernels.engine.program`.
RUNNERS = {
    "xla": "gnomon.kernels.engine.whole",
    "tpu": "gnomon.kernels.engine.tpu.runner",
    "gpu": "gnomon.kernels.engine.gpu.runner",
}


class Choice(NamedTuple):
    """The implementation of one call."""

    implementation: Literal["xla", "tpu", "gpu"]
    reason: str  # one clause, for people


def choose(
    op: str,
    implementation: Implementation | None,
    refusal: Callable[[str], str | None],
    *,
    platform: str | None = None,
    fall_back: bool = False,
    empty: bool = False,
) -> Choice:
    """Picks the implementation of one call.

    Args:
      op: name of the operation, as in :data:`FASTER_THAN_XLA`.
      implementation: what the caller asks for, a :class:`Tpu` or :class:`Gpu` where
        it has sizes of its own, or None to let the platform decide.
      refusal: given ``"tpu"`` or ``"gpu"``, why that kernel cannot take the call's
        shapes and dtypes, or None when it can.
      platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``; default JAX's default backend.
      fall_back: whether a call that the named kernel does not support is XLA's, as for
        the leaves of an optimizer, and no error. Default False.
      empty: whether the call has no numbers: there is nothing for a kernel to do.

    Returns:
      The choice. ``None`` gives a kernel where it is known to be faster and supports
      the call, else ``xla``.

    Raises:
      ValueError: if ``implementation`` is not a known name, or names a kernel that
        does not support the call and ``fall_back`` is False.

    Example:
      >>> choose("adam", None, lambda kernel: None, platform="tpu")
      Choice(implementation='xla', reason='the tpu kernel of adam has not been measured
      faster than XLA')
      >>> choose("adam", "tpu", lambda kernel: None)
      Choice(implementation='tpu', reason='asked for')
    """
    if isinstance(implementation, Tpu | Gpu):
        implementation = implementation.kernel
    if implementation == "xla":
        return Choice("xla", "asked for")
    if implementation in ("tpu", "gpu"):
        if empty:
            return Choice("xla", "there is nothing to do")
        reason = _refusal(implementation, refusal)
        if reason is not None and fall_back:
            return Choice(
                "xla", f"the {implementation} kernel of {op} does not take it: {reason}"
            )
        if reason is not None:
            raise ValueError(
                f"the {implementation} kernel of {op} does not support this call: "
                f"{reason}. Pass implementation=None to fall back to XLA, or 'xla'."
            )
        return Choice(implementation, "asked for")
    if implementation is not None:
        raise ValueError(
            f"implementation must be None, 'xla', 'tpu' or 'gpu', not "
            f"{implementation!r}."
        )
    if empty:
        return Choice("xla", "there is nothing to do")
    platform = jax.default_backend() if platform is None else platform
    if platform not in ("tpu", "gpu"):
        return Choice("xla", f"{op} has no kernel for {platform}")
    if platform not in FASTER_THAN_XLA.get(op, ()):
        return Choice(
            "xla",
            f"the {platform} kernel of {op} has not been measured faster than XLA",
        )
    reason = _refusal(platform, refusal)
    if reason is not None:
        return Choice(
            "xla", f"the {platform} kernel of {op} does not take it: {reason}"
        )
    kernel: Literal["tpu", "gpu"] = "tpu" if platform == "tpu" else "gpu"
    return Choice(kernel, f"measured faster than XLA on {platform}")


class LeafOp(NamedTuple):
    """A step on leaves of any shape, and what its kernels support."""

    name: str  # as in FASTER_THAN_XLA
    # What `explain` asks of arrays beside the parameter, and their dtypes unless it is
    # told: None is that of the parameter.
    dtypes: Mapping[str, jax.typing.DTypeLike | None]

    def explain(
        self,
        dtype: jax.typing.DTypeLike = "float32",
        *,
        shape: Sequence[int] | None = None,
        sharding: NamedSharding | None = None,
        implementation: Implementation | None = None,
        platform: str | None = None,
        fall_back: bool = False,
        **dtypes: jax.typing.DTypeLike | None,
    ) -> Choice:
        """Which implementation the step takes, and why.

        Args:
          dtype: dtype of the parameter.
          shape: of the parameter; without it the answer is that for most shapes.
          sharding: how it lies on a mesh.
          implementation: as in the step.
          platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``; default JAX's default backend.
          fall_back: as in the step.
          **dtypes: of other arrays, by the names of :attr:`dtypes`.

        Returns:
          The choice and its reason.

        Raises:
          ValueError: as the step.
          TypeError: if the operation has no array of a name.

        Example:
          >>> op = LeafOp("sgd", {"gradient_dtype": None, "trace_dtype": "float32"})
          >>> op.explain(platform="cpu")
          Choice(implementation='xla', reason='sgd has no kernel for cpu')
          >>> op.explain(trace_dtype="int8", implementation="tpu", fall_back=True)
          Choice(implementation='xla', reason='the tpu kernel of sgd does not take it:
          it has no arithmetic for int8')
        """
        if unknown := dtypes.keys() - self.dtypes.keys():
            raise TypeError(f"{self.name} has no {', '.join(sorted(unknown))}")
        others = (dtypes.get(name) or of or dtype for name, of in self.dtypes.items())
        return self.choose(
            *(dtype, *others),
            local=local_shape(shape, sharding),
            implementation=implementation,
            platform=platform,
            fall_back=fall_back,
        )

    def choose(
        self,
        *dtypes: jax.typing.DTypeLike,
        local: Sequence[int] | None,
        implementation: Implementation | None,
        platform: str | None = None,
        fall_back: bool,
    ) -> Choice:
        """The choice for arrays of some dtypes and their shape on one device."""
        size = None if local is None else math.prod(local)
        return choose(
            self.name,
            implementation,
            lambda kernel: refusal(kernel, *dtypes, size=size or 0),
            platform=platform,
            fall_back=fall_back,
            empty=size == 0,
        )

    def runner(
        self,
        w: jax.Array,
        *others: jax.Array,
        sharding: NamedSharding | None,
        implementation: Implementation | None,
        fall_back: bool,
    ) -> "Runner":
        """What runs the step's program on a leaf.

        Args:
          w: the parameter.
          *others: the other arrays of its shape.
          sharding: how they lie on a mesh.
          implementation: as in the step, as the one below.
          fall_back: whether XLA takes what the named kernel does not.

        Returns:
          The runner.

        Raises:
          ValueError: as the step.
        """
        chosen = self.choose(
            *(x.dtype for x in (w, *others)),
            local=local_shape(w.shape, sharding),
            implementation=implementation,
            fall_back=fall_back,
        )
        # Pallas takes as long to import as JAX itself; only those who use it pay.
        module = importlib.import_module(RUNNERS[chosen.implementation])
        return Runner(module, sized(implementation, chosen.implementation))


class Runner(NamedTuple):
    """A module that runs programs: ``whole``, ``tpu.runner`` or ``gpu.runner``."""

    module: Any
    sizes: Tpu | Gpu | None

    @property
    def power(self) -> Any:
        """See :data:`gnomon.kernels.engine.program.Power`."""
        return self.module.power

    @property
    def again(self) -> Any:
        """See :data:`gnomon.kernels.engine.program.Again`; None where it shares all."""
        return getattr(self.module, "again", None)

    def step(self, *arguments: Any, **how: Any) -> Any:
        """Runs a program, see :func:`gnomon.kernels.engine.whole.step`."""
        return self.module.step(*arguments, **how, sizes=self.sizes)

    def sums(self, *arguments: Any, **how: Any) -> Any:
        """The sums of sweeps, see :func:`gnomon.kernels.engine.whole.sums`."""
        return self.module.sums(*arguments, **how, sizes=self.sizes)

    def holds(self, *arguments: Any, **how: Any) -> bool:
        """Whether :meth:`step` finds all sums of a leaf on the chip."""
        return self.module.holds(*arguments, **how, sizes=self.sizes)


def local_shape(
    shape: Sequence[int] | None, sharding: NamedSharding | None
) -> tuple[int, ...] | None:
    """The shape that one device has of a leaf; None where the leaf's is not known."""
    if shape is None or sharding is None:
        return None if shape is None else tuple(shape)
    return sharding.shard_shape(tuple(shape))


def _refusal(kernel: str, refusal: Callable[[str], str | None]) -> str | None:
    if kernel == "gpu" and jax.__version_info__[:2] < GPU_NEEDS_JAX:
        needed = ".".join(map(str, GPU_NEEDS_JAX))
        return f"GPU kernels need jax >= {needed}, found {jax.__version__}"
    return refusal(kernel)


def refusal(kernel: str, *dtypes: jax.typing.DTypeLike, size: int = 0) -> str | None:
    """Why a kernel cannot update a leaf, or None.

    Args:
      kernel: ``"tpu"`` or ``"gpu"``.
      *dtypes: of the parameter, of what moves it, and of its state.
      size: how many numbers the leaf has.

    Returns:
      The reason.
    """
    foreign = foreign_dtypes(*dtypes, interpreted=kernel == "tpu")
    return too_large(kernel, size) or foreign


def too_large(kernel: str, size: int) -> str | None:
    """Why a kernel cannot update a leaf of so many numbers, or None."""
    if kernel == "gpu" and size >= 2**31:
        return f"it counts in 32 bits, too few for {size} numbers"
    return None


def foreign_dtypes(
    *dtypes: jax.typing.DTypeLike, interpreted: bool = False
) -> str | None:
    """Why kernels cannot compute with these dtypes, or None.

    Args:
      *dtypes: of the arrays of a leaf.
      interpreted: whether the kernel may be one that the TPU's interpreter runs, which
        is on CPU and the only one to compute in float64.

    Returns:
      The reason.

    Example:
      >>> foreign_dtypes("float32", "int8", "float16")
      'it has no arithmetic for float16, int8'
    """
    allowed = {"float32", "bfloat16"}
    if interpreted and jax.default_backend() == "cpu":
        allowed.add("float64")
    foreign = sorted({jnp.dtype(dtype).name for dtype in dtypes} - allowed)
    return f"it has no arithmetic for {', '.join(foreign)}" if foreign else None
