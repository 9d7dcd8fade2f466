"""optax transforms that act on what weights are: their norms, directions, variances.

Each method is one file with its formula, references and the differences between the
paper and its authors' code. ``geometry`` says which axes of a parameter form one output
unit; ``projection`` removes the radial part of a direction.
"""

from gnomon.optimizers import constraints, geometry
from gnomon.optimizers.adamp import ScaleByAdamPState, adamp, scale_by_adamp
from gnomon.optimizers.alig import AligState, alig
from gnomon.optimizers.alr import (
    AlrHbState,
    AlrMagState,
    alr_hb,
    alr_mag,
    alr_shb,
    alr_smag,
)
from gnomon.optimizers.constrain import (
    ConstrainState,
    Constraint,
    constrain,
    leafwise,
)
from gnomon.optimizers.constraints import (
    fixed_norm,
    max_norm,
    target_std,
    unit_sphere,
)
from gnomon.optimizers.curvature import scale_by_newton
from gnomon.optimizers.data_dependent_init import data_dependent_init
from gnomon.optimizers.diagonal import (
    ScaleByDiagonalState,
    scale_by_adagrad_sqr,
    scale_by_adam_sqr,
    scale_by_hutchinson,
)
from gnomon.optimizers.fadam import ScaleByFAdamState, fadam, scale_by_fadam
from gnomon.optimizers.fused import FusedTransformation, apply_fused
from gnomon.optimizers.geometry import (
    Axes,
    cosine,
    project_tangent,
    resolve_axes,
    retract,
    unit_axes,
    unit_norm,
)
from gnomon.optimizers.hyperball import HyperballState, hyperball
from gnomon.optimizers.lawn import lawn, lawn_schedule
from gnomon.optimizers.momo import MomoState, momo, momo_adam
from gnomon.optimizers.momsps import MomSpsState, momsps
from gnomon.optimizers.norm_loss import AddNormLossState, add_norm_loss, norm_loss
from gnomon.optimizers.projection import ProjectRadialState, project_radial
from gnomon.optimizers.reparameterize import ReparameterizeState, reparameterize
from gnomon.optimizers.sania import SaniaState, sania
from gnomon.optimizers.sgdp import ScaleBySgdpState, scale_by_sgdp, sgdp
from gnomon.optimizers.sps import SpsState, sps
from gnomon.optimizers.variance import (
    layer_index_rescaling,
    target_variance_rescaling,
)
from gnomon.optimizers.weight_norm import WeightNormLatents, weight_norm

__all__ = (
    "AddNormLossState",
    "AligState",
    "AlrHbState",
    "AlrMagState",
    "Axes",
    "ConstrainState",
    "Constraint",
    "FusedTransformation",
    "HyperballState",
    "MomSpsState",
    "MomoState",
    "ProjectRadialState",
    "ReparameterizeState",
    "SaniaState",
    "ScaleByAdamPState",
    "ScaleByDiagonalState",
    "ScaleByFAdamState",
    "ScaleBySgdpState",
    "SpsState",
    "WeightNormLatents",
    "adamp",
    "add_norm_loss",
    "alig",
    "alr_hb",
    "alr_mag",
    "alr_shb",
    "alr_smag",
    "apply_fused",
    "constrain",
    "constraints",
    "cosine",
    "data_dependent_init",
    "fadam",
    "fixed_norm",
    "geometry",
    "hyperball",
    "lawn",
    "lawn_schedule",
    "layer_index_rescaling",
    "leafwise",
    "max_norm",
    "momo",
    "momo_adam",
    "momsps",
    "norm_loss",
    "project_radial",
    "project_tangent",
    "reparameterize",
    "resolve_axes",
    "retract",
    "sania",
    "scale_by_adagrad_sqr",
    "scale_by_adam_sqr",
    "scale_by_adamp",
    "scale_by_fadam",
    "scale_by_hutchinson",
    "scale_by_newton",
    "scale_by_sgdp",
    "sgdp",
    "sps",
    "target_std",
    "target_variance_rescaling",
    "unit_axes",
    "unit_norm",
    "unit_sphere",
    "weight_norm",
)
