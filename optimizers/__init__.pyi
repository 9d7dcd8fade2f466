# Written by tests/support/optimizers_stub.py from the modules' __all__.
from gnomon.optimizers.adaptive.adabelief import ScaleByBeliefState as ScaleByBeliefState
from gnomon.optimizers.adaptive.adabelief import adabelief as adabelief
from gnomon.optimizers.adaptive.adabelief import scale_by_belief as scale_by_belief
from gnomon.optimizers.adaptive.adam_atan2 import ScaleByAdamAtan2State as ScaleByAdamAtan2State
from gnomon.optimizers.adaptive.adam_atan2 import adam_atan2 as adam_atan2
from gnomon.optimizers.adaptive.adam_atan2 import scale_by_adam_atan2 as scale_by_adam_atan2
from gnomon.optimizers.adaptive.centralize import CentralizeState as CentralizeState
from gnomon.optimizers.adaptive.centralize import centralize_units as centralize_units
from gnomon.optimizers.adaptive.centralize import standardize_gradients as standardize_gradients
from gnomon.optimizers.adaptive.eight_bit import adamp_8bit as adamp_8bit
from gnomon.optimizers.adaptive.eight_bit import adamw_8bit as adamw_8bit
from gnomon.optimizers.adaptive.fadam import ScaleByFAdamState as ScaleByFAdamState
from gnomon.optimizers.adaptive.fadam import fadam as fadam
from gnomon.optimizers.adaptive.fadam import scale_by_fadam as scale_by_fadam
from gnomon.optimizers.adaptive.gravity import ScaleByGravityState as ScaleByGravityState
from gnomon.optimizers.adaptive.gravity import gravity as gravity
from gnomon.optimizers.adaptive.gravity import scale_by_gravity as scale_by_gravity
from gnomon.optimizers.adaptive.optimistic_amsgrad import OptimisticAMSGradState as OptimisticAMSGradState
from gnomon.optimizers.adaptive.optimistic_amsgrad import optimistic_amsgrad as optimistic_amsgrad
from gnomon.optimizers.adaptive.pnm import ScaleByPNMState as ScaleByPNMState
from gnomon.optimizers.adaptive.pnm import scale_by_pnm as scale_by_pnm
from gnomon.optimizers.adaptive.subset_norm import ScaleBySubsetNormState as ScaleBySubsetNormState
from gnomon.optimizers.adaptive.subset_norm import scale_by_subset_norm as scale_by_subset_norm
from gnomon.optimizers.adaptive.subset_norm import subset_norm as subset_norm
from gnomon.optimizers.clipping.adaptive_clip import AdaptiveClipState as AdaptiveClipState
from gnomon.optimizers.clipping.adaptive_clip import adaptive_clip as adaptive_clip
from gnomon.optimizers.clipping.group_norm import clip_by_group_norm as clip_by_group_norm
from gnomon.optimizers.clipping.norm_growth import LimitNormGrowthState as LimitNormGrowthState
from gnomon.optimizers.clipping.norm_growth import limit_norm_growth as limit_norm_growth
from gnomon.optimizers.curvature import scale_by_newton as scale_by_newton
from gnomon.optimizers.lookahead import EmaNesterovState as EmaNesterovState
from gnomon.optimizers.lookahead import ema_nesterov as ema_nesterov
from gnomon.optimizers.lowrank.conda import ScaleByCondaState as ScaleByCondaState
from gnomon.optimizers.lowrank.conda import conda as conda
from gnomon.optimizers.lowrank.fira import ScaleByFiraState as ScaleByFiraState
from gnomon.optimizers.lowrank.fira import fira as fira
from gnomon.optimizers.lowrank.galore import ScaleByGaloreState as ScaleByGaloreState
from gnomon.optimizers.lowrank.galore import galore as galore
from gnomon.optimizers.lowrank.subspace_momentum import ScaleBySubspaceMomentumState as ScaleBySubspaceMomentumState
from gnomon.optimizers.lowrank.subspace_momentum import subspace_momentum as subspace_momentum
from gnomon.optimizers.matrices import head_matrices as head_matrices
from gnomon.optimizers.matrices import hidden_matrices as hidden_matrices
from gnomon.optimizers.matrix.lmo import ScaleByAveragedLmoState as ScaleByAveragedLmoState
from gnomon.optimizers.matrix.lmo import ScaleByLmoState as ScaleByLmoState
from gnomon.optimizers.matrix.lmo import scale_by_lmo as scale_by_lmo
from gnomon.optimizers.matrix.normuon import NorMuonState as NorMuonState
from gnomon.optimizers.matrix.normuon import ScaleByNeuronRmsState as ScaleByNeuronRmsState
from gnomon.optimizers.matrix.normuon import normuon as normuon
from gnomon.optimizers.matrix.normuon import scale_by_neuron_rms as scale_by_neuron_rms
from gnomon.optimizers.matrix.polar_express import polar_express as polar_express
from gnomon.optimizers.matrix.scion import scion as scion
from gnomon.optimizers.matrix.shampoo import ShampooState as ShampooState
from gnomon.optimizers.matrix.shampoo import shampoo as shampoo
from gnomon.optimizers.matrix.soap import ScaleBySoapState as ScaleBySoapState
from gnomon.optimizers.matrix.soap import scale_by_soap as scale_by_soap
from gnomon.optimizers.matrix.soap import soap as soap
from gnomon.optimizers.mechanisms.balance import Balance as Balance
from gnomon.optimizers.mechanisms.balance import balance as balance
from gnomon.optimizers.mechanisms.buckets import Buckets as Buckets
from gnomon.optimizers.mechanisms.buckets import bucket_leaves as bucket_leaves
from gnomon.optimizers.mechanisms.constrain import ConstrainState as ConstrainState
from gnomon.optimizers.mechanisms.constrain import Constraint as Constraint
from gnomon.optimizers.mechanisms.constrain import constrain as constrain
from gnomon.optimizers.mechanisms.constrain import leaf_constraint as leaf_constraint
from gnomon.optimizers.mechanisms.descent import DescendState as DescendState
from gnomon.optimizers.mechanisms.descent import descend as descend
from gnomon.optimizers.mechanisms.diagnostics import Observations as Observations
from gnomon.optimizers.mechanisms.diagnostics import diagnostics as diagnostics
from gnomon.optimizers.mechanisms.diagnostics import observed as observed
from gnomon.optimizers.mechanisms.fused import FusedTransformation as FusedTransformation
from gnomon.optimizers.mechanisms.fused import apply_fused as apply_fused
from gnomon.optimizers.mechanisms.groups import parameter_groups as parameter_groups
from gnomon.optimizers.mechanisms.groups import scale_by_group as scale_by_group
from gnomon.optimizers.mechanisms.leafwise import Leafwise as Leafwise
from gnomon.optimizers.mechanisms.leafwise import leafwise as leafwise
from gnomon.optimizers.mechanisms.per_layer import per_layer as per_layer
from gnomon.optimizers.mechanisms.perturb import Displaced as Displaced
from gnomon.optimizers.mechanisms.perturb import PerturbState as PerturbState
from gnomon.optimizers.mechanisms.perturb import perturb as perturb
from gnomon.optimizers.mechanisms.projection import ProjectRadialState as ProjectRadialState
from gnomon.optimizers.mechanisms.projection import project_radial as project_radial
from gnomon.optimizers.mechanisms.quantized import QuantizeMomentsState as QuantizeMomentsState
from gnomon.optimizers.mechanisms.quantized import quantize_moments as quantize_moments
from gnomon.optimizers.mechanisms.reparameterize import ReparameterizeState as ReparameterizeState
from gnomon.optimizers.mechanisms.reparameterize import reparameterize as reparameterize
from gnomon.optimizers.mechanisms import sets as constraints
from gnomon.optimizers.mechanisms.sets import fixed_norm as fixed_norm
from gnomon.optimizers.mechanisms.sets import max_norm as max_norm
from gnomon.optimizers.mechanisms.sets import target_std as target_std
from gnomon.optimizers.mechanisms.sets import unit_sphere as unit_sphere
from gnomon.optimizers.norms.adamp import ScaleByAdamPState as ScaleByAdamPState
from gnomon.optimizers.norms.adamp import adamp as adamp
from gnomon.optimizers.norms.adamp import scale_by_adamp as scale_by_adamp
from gnomon.optimizers.norms.data_dependent_init import data_dependent_init as data_dependent_init
from gnomon.optimizers.norms.hyperball import HyperballState as HyperballState
from gnomon.optimizers.norms.hyperball import hyperball as hyperball
from gnomon.optimizers.norms.lawn import lawn as lawn
from gnomon.optimizers.norms.lawn import lawn_schedule as lawn_schedule
from gnomon.optimizers.norms.lipschitz_penalty import LipschitzPenaltyState as LipschitzPenaltyState
from gnomon.optimizers.norms.lipschitz_penalty import add_lipschitz_penalty as add_lipschitz_penalty
from gnomon.optimizers.norms.norm_loss import AddNormLossState as AddNormLossState
from gnomon.optimizers.norms.norm_loss import add_norm_loss as add_norm_loss
from gnomon.optimizers.norms.norm_loss import norm_loss as norm_loss
from gnomon.optimizers.norms.radial_brake import RadialBrakeState as RadialBrakeState
from gnomon.optimizers.norms.radial_brake import radial_brake as radial_brake
from gnomon.optimizers.norms.sgdp import ScaleBySgdpState as ScaleBySgdpState
from gnomon.optimizers.norms.sgdp import scale_by_sgdp as scale_by_sgdp
from gnomon.optimizers.norms.sgdp import sgdp as sgdp
from gnomon.optimizers.norms.spectral_cap import rms_cap as rms_cap
from gnomon.optimizers.norms.spectral_cap import spectral_cap as spectral_cap
from gnomon.optimizers.norms.update_floor import UpdateFloorState as UpdateFloorState
from gnomon.optimizers.norms.update_floor import update_floor as update_floor
from gnomon.optimizers.norms.variance import layer_index_rescaling as layer_index_rescaling
from gnomon.optimizers.norms.variance import target_variance_rescaling as target_variance_rescaling
from gnomon.optimizers.norms.weight_norm import WeightNormLatents as WeightNormLatents
from gnomon.optimizers.norms.weight_norm import weight_norm as weight_norm
from gnomon.optimizers.polyak.alig import AligState as AligState
from gnomon.optimizers.polyak.alig import alig as alig
from gnomon.optimizers.polyak.alr import AlrHbState as AlrHbState
from gnomon.optimizers.polyak.alr import AlrMagState as AlrMagState
from gnomon.optimizers.polyak.alr import alr_hb as alr_hb
from gnomon.optimizers.polyak.alr import alr_mag as alr_mag
from gnomon.optimizers.polyak.alr import alr_shb as alr_shb
from gnomon.optimizers.polyak.alr import alr_smag as alr_smag
from gnomon.optimizers.polyak.diagonal import ScaleByDiagonalState as ScaleByDiagonalState
from gnomon.optimizers.polyak.diagonal import scale_by_adagrad_sqr as scale_by_adagrad_sqr
from gnomon.optimizers.polyak.diagonal import scale_by_adam_sqr as scale_by_adam_sqr
from gnomon.optimizers.polyak.diagonal import scale_by_hutchinson as scale_by_hutchinson
from gnomon.optimizers.polyak.mean_slope import ScaleByMeanSlopeState as ScaleByMeanSlopeState
from gnomon.optimizers.polyak.mean_slope import scale_by_mean_slope as scale_by_mean_slope
from gnomon.optimizers.polyak.momo import MomoState as MomoState
from gnomon.optimizers.polyak.momo import momo as momo
from gnomon.optimizers.polyak.momo import momo_adam as momo_adam
from gnomon.optimizers.polyak.momsps import MomSpsState as MomSpsState
from gnomon.optimizers.polyak.momsps import momsps as momsps
from gnomon.optimizers.polyak.sania import SaniaState as SaniaState
from gnomon.optimizers.polyak.sania import sania as sania
from gnomon.optimizers.polyak.sps import SpsState as SpsState
from gnomon.optimizers.polyak.sps import sps as sps
from gnomon.optimizers.sharpness.cram import cram as cram
from gnomon.optimizers.sharpness.gradient_penalty import add_gradient_penalty as add_gradient_penalty
from gnomon.optimizers.sharpness.sam import asam as asam
from gnomon.optimizers.sharpness.sam import normalization_leaves as normalization_leaves
from gnomon.optimizers.sharpness.sam import sam as sam
from gnomon.optimizers.tail import TailAverageState as TailAverageState
from gnomon.optimizers.tail import tail_average as tail_average
from gnomon.optimizers.transfer import mup as mup
from gnomon.optimizers.transfer import mup_initialization as mup_initialization
from gnomon.optimizers.transfer import scale_by_width as scale_by_width
from gnomon.optimizers.transfer import standard_parameterization as standard_parameterization
from gnomon.optimizers.trust.lamb import LambState as LambState
from gnomon.optimizers.trust.lamb import lamb as lamb
from gnomon.optimizers.trust.lars import lars as lars
from gnomon.optimizers.trust.tvlars import tvlars as tvlars
from gnomon.optimizers.width import Growth as Growth
from gnomon.optimizers.width import learning_rate_factors as learning_rate_factors
from gnomon.optimizers.width import mup_rule as mup_rule
from gnomon.optimizers.width import standard_rule as standard_rule
from gnomon.optimizers.width import width_growth as width_growth
from gnomon.parameters.units import Axes as Axes
from gnomon.parameters.units import OUTPUTS_FIRST as OUTPUTS_FIRST
from gnomon.parameters.units import cosine as cosine
from gnomon.parameters import units as geometry
from gnomon.parameters.units import project_tangent as project_tangent
from gnomon.parameters.units import resolve_axes as resolve_axes
from gnomon.parameters.units import retract as retract
from gnomon.parameters.units import unit_axes as unit_axes
from gnomon.parameters.units import unit_norm as unit_norm

__all__ = [
    "AdaptiveClipState",
    "AddNormLossState",
    "AligState",
    "AlrHbState",
    "AlrMagState",
    "Axes",
    "Balance",
    "Buckets",
    "CentralizeState",
    "ConstrainState",
    "Constraint",
    "DescendState",
    "Displaced",
    "EmaNesterovState",
    "FusedTransformation",
    "Growth",
    "HyperballState",
    "LambState",
    "Leafwise",
    "LimitNormGrowthState",
    "LipschitzPenaltyState",
    "MomSpsState",
    "MomoState",
    "NorMuonState",
    "OUTPUTS_FIRST",
    "Observations",
    "OptimisticAMSGradState",
    "PerturbState",
    "ProjectRadialState",
    "QuantizeMomentsState",
    "RadialBrakeState",
    "ReparameterizeState",
    "SaniaState",
    "ScaleByAdamAtan2State",
    "ScaleByAdamPState",
    "ScaleByAveragedLmoState",
    "ScaleByBeliefState",
    "ScaleByCondaState",
    "ScaleByDiagonalState",
    "ScaleByFAdamState",
    "ScaleByFiraState",
    "ScaleByGaloreState",
    "ScaleByGravityState",
    "ScaleByLmoState",
    "ScaleByMeanSlopeState",
    "ScaleByNeuronRmsState",
    "ScaleByPNMState",
    "ScaleBySgdpState",
    "ScaleBySoapState",
    "ScaleBySubsetNormState",
    "ScaleBySubspaceMomentumState",
    "ShampooState",
    "SpsState",
    "TailAverageState",
    "UpdateFloorState",
    "WeightNormLatents",
    "adabelief",
    "adam_atan2",
    "adamp",
    "adamp_8bit",
    "adamw_8bit",
    "adaptive_clip",
    "add_gradient_penalty",
    "add_lipschitz_penalty",
    "add_norm_loss",
    "alig",
    "alr_hb",
    "alr_mag",
    "alr_shb",
    "alr_smag",
    "apply_fused",
    "asam",
    "balance",
    "bucket_leaves",
    "centralize_units",
    "clip_by_group_norm",
    "conda",
    "constrain",
    "constraints",
    "cosine",
    "cram",
    "data_dependent_init",
    "descend",
    "diagnostics",
    "ema_nesterov",
    "fadam",
    "fira",
    "fixed_norm",
    "galore",
    "geometry",
    "gravity",
    "head_matrices",
    "hidden_matrices",
    "hyperball",
    "lamb",
    "lars",
    "lawn",
    "lawn_schedule",
    "layer_index_rescaling",
    "leaf_constraint",
    "leafwise",
    "learning_rate_factors",
    "limit_norm_growth",
    "max_norm",
    "momo",
    "momo_adam",
    "momsps",
    "mup",
    "mup_initialization",
    "mup_rule",
    "norm_loss",
    "normalization_leaves",
    "normuon",
    "observed",
    "optimistic_amsgrad",
    "parameter_groups",
    "per_layer",
    "perturb",
    "polar_express",
    "project_radial",
    "project_tangent",
    "quantize_moments",
    "radial_brake",
    "reparameterize",
    "resolve_axes",
    "retract",
    "rms_cap",
    "sam",
    "sania",
    "scale_by_adagrad_sqr",
    "scale_by_adam_atan2",
    "scale_by_adam_sqr",
    "scale_by_adamp",
    "scale_by_belief",
    "scale_by_fadam",
    "scale_by_gravity",
    "scale_by_group",
    "scale_by_hutchinson",
    "scale_by_lmo",
    "scale_by_mean_slope",
    "scale_by_neuron_rms",
    "scale_by_newton",
    "scale_by_pnm",
    "scale_by_sgdp",
    "scale_by_soap",
    "scale_by_subset_norm",
    "scale_by_width",
    "scion",
    "sgdp",
    "shampoo",
    "soap",
    "spectral_cap",
    "sps",
    "standard_parameterization",
    "standard_rule",
    "standardize_gradients",
    "subset_norm",
    "subspace_momentum",
    "tail_average",
    "target_std",
    "target_variance_rescaling",
    "tvlars",
    "unit_axes",
    "unit_norm",
    "unit_sphere",
    "update_floor",
    "weight_norm",
    "width_growth",
]
