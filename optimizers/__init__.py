"""optax transforms that act on what weights are: their norms, directions, variances.

Each method is one file with its formula, references and the differences between the
paper and its authors' code. ``geometry`` says which axes of a parameter form one output
unit; ``projection`` removes the radial part of a direction.
"""

from gnomon.optimizers import geometry
from gnomon.optimizers.adamp import ScaleByAdamPState, adamp, scale_by_adamp
from gnomon.optimizers.geometry import (
    Axes,
    cosine,
    project_tangent,
    resolve_axes,
    retract,
    unit_axes,
    unit_norm,
)
from gnomon.optimizers.projection import ProjectRadialState, project_radial
from gnomon.optimizers.sgdp import ScaleBySgdpState, scale_by_sgdp, sgdp

__all__ = (
    "Axes",
    "ProjectRadialState",
    "ScaleByAdamPState",
    "ScaleBySgdpState",
    "adamp",
    "cosine",
    "geometry",
    "project_radial",
    "project_tangent",
    "resolve_axes",
    "retract",
    "scale_by_adamp",
    "scale_by_sgdp",
    "sgdp",
    "unit_axes",
    "unit_norm",
)
