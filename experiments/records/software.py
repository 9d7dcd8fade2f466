"""What software numbers come from. It imports no package that it speaks of."""

import importlib.metadata
import platform

PACKAGES = ("gnomon", "jax", "jaxlib", "flax", "optax", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result's numbers."""
    found = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # imported from a checkout
        return "not installed"
