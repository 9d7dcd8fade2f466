"""optax transforms that act on what weights are: their norms, directions, variances.

Each method is one file with its formula, references and the differences between the
paper and its authors' code. ``projection`` removes the radial part of a direction;
``geometry`` is ``gnomon.parameters.units``: which axes form one output unit.
"""

from gnomon.optimizers.adaptive.eight_bit import adamp_8bit, adamw_8bit
from gnomon.optimizers.adaptive.fadam import ScaleByFAdamState, fadam, scale_by_fadam
from gnomon.optimizers.curvature import scale_by_newton
from gnomon.optimizers.matrices import hidden_matrices
from gnomon.optimizers.mechanisms import sets as constraints
from gnomon.optimizers.mechanisms.buckets import Buckets, bucket_leaves
from gnomon.optimizers.mechanisms.constrain import (
    ConstrainState,
    Constraint,
    constrain,
    leaf_constraint,
)
from gnomon.optimizers.mechanisms.descent import DescendState, descend
from gnomon.optimizers.mechanisms.fused import FusedTransformation, apply_fused
from gnomon.optimizers.mechanisms.per_layer import per_layer
from gnomon.optimizers.mechanisms.projection import ProjectRadialState, project_radial
from gnomon.optimizers.mechanisms.quantized import (
    QuantizeMomentsState,
    quantize_moments,
)
from gnomon.optimizers.mechanisms.reparameterize import (
    ReparameterizeState,
    reparameterize,
)
from gnomon.optimizers.mechanisms.sets import (
    fixed_norm,
    max_norm,
    target_std,
    unit_sphere,
)
from gnomon.optimizers.norms.adamp import ScaleByAdamPState, adamp, scale_by_adamp
from gnomon.optimizers.norms.data_dependent_init import data_dependent_init
from gnomon.optimizers.norms.hyperball import HyperballState, hyperball
from gnomon.optimizers.norms.lawn import lawn, lawn_schedule
from gnomon.optimizers.norms.norm_loss import AddNormLossState, add_norm_loss, norm_loss
from gnomon.optimizers.norms.sgdp import ScaleBySgdpState, scale_by_sgdp, sgdp
from gnomon.optimizers.norms.variance import (
    layer_index_rescaling,
    target_variance_rescaling,
)
from gnomon.optimizers.norms.weight_norm import WeightNormLatents, weight_norm
from gnomon.optimizers.polyak.alig import AligState, alig
from gnomon.optimizers.polyak.alr import (
    AlrHbState,
    AlrMagState,
    alr_hb,
    alr_mag,
    alr_shb,
    alr_smag,
)
from gnomon.optimizers.polyak.diagonal import (
    ScaleByDiagonalState,
    scale_by_adagrad_sqr,
    scale_by_adam_sqr,
    scale_by_hutchinson,
)
from gnomon.optimizers.polyak.momo import MomoState, momo, momo_adam
from gnomon.optimizers.polyak.momsps import MomSpsState, momsps
from gnomon.optimizers.polyak.sania import SaniaState, sania
from gnomon.optimizers.polyak.sps import SpsState, sps
from gnomon.optimizers.transfer import (
    mup,
    mup_initialization,
    scale_by_width,
    standard_parameterization,
)
from gnomon.optimizers.width import (
    Growth,
    learning_rate_factors,
    mup_rule,
    standard_rule,
    width_growth,
)
from gnomon.parameters import units as geometry
from gnomon.parameters.units import (
    OUTPUTS_FIRST,
    Axes,
    cosine,
    project_tangent,
    resolve_axes,
    retract,
    unit_axes,
    unit_norm,
)

__all__ = (
    "OUTPUTS_FIRST",
    "AddNormLossState",
    "AligState",
    "AlrHbState",
    "AlrMagState",
    "Axes",
    "Buckets",
    "ConstrainState",
    "Constraint",
    "DescendState",
    "FusedTransformation",
    "Growth",
    "HyperballState",
    "MomSpsState",
    "MomoState",
    "ProjectRadialState",
    "QuantizeMomentsState",
    "ReparameterizeState",
    "SaniaState",
    "ScaleByAdamPState",
    "ScaleByDiagonalState",
    "ScaleByFAdamState",
    "ScaleBySgdpState",
    "SpsState",
    "WeightNormLatents",
    "adamp",
    "adamp_8bit",
    "adamw_8bit",
    "add_norm_loss",
    "alig",
    "alr_hb",
    "alr_mag",
    "alr_shb",
    "alr_smag",
    "apply_fused",
    "bucket_leaves",
    "constrain",
    "constraints",
    "cosine",
    "data_dependent_init",
    "descend",
    "fadam",
    "fixed_norm",
    "geometry",
    "hidden_matrices",
    "hyperball",
    "lawn",
    "lawn_schedule",
    "layer_index_rescaling",
    "leaf_constraint",
    "learning_rate_factors",
    "max_norm",
    "momo",
    "momo_adam",
    "momsps",
    "mup",
    "mup_initialization",
    "mup_rule",
    "norm_loss",
    "per_layer",
    "project_radial",
    "project_tangent",
    "quantize_moments",
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
    "scale_by_width",
    "sgdp",
    "sps",
    "standard_parameterization",
    "standard_rule",
    "target_std",
    "target_variance_rescaling",
    "unit_axes",
    "unit_norm",
    "unit_sphere",
    "weight_norm",
    "width_growth",
)
