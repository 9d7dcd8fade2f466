"""Probes of a training run: what the weights, the gradients and the loss are doing.

Pure functions of what a loop has at hand, returning documented NamedTuples; they work
under ``jit``, ``vmap``, ``scan`` and on sharded arrays. What cannot be computed is NaN,
for a reason that the record's documentation gives, and raises nothing.

- *Free*, from the parameters, gradients and updates of a step: :func:`layer_motion`,
  :func:`equilibrium`, :func:`activations`, :func:`logits`; :func:`measure` keeps them
  in the state of any optax optimizer.
- *Cheap*, every so many steps: :func:`group_gradients` with :func:`noise_scale`,
  :func:`spectral_norms`, :func:`gradient_ranks`, :func:`layer_activations`,
  :func:`lipschitz_bound` by :func:`gram_bound`.
- *Full*, from a loss and a batch: :func:`top_eigenvalues` with
  :func:`stability_ratio`, :func:`hessian_spectrum`, :func:`hutch_plus_plus_trace`,
  :func:`loss_plane`, :func:`linear_barrier` after :func:`weight_matching`,
  :func:`el2n_scores` and :func:`grand_scores`.

Across widths :func:`coordinate_check` says what grows or vanishes with the width.
`gnomon.dynamics.names` lists the names under which the trainer writes them.
"""

from gnomon.dynamics.activations import (
    Activations,
    LayerActivations,
    Logits,
    activations,
    layer_activations,
    logits,
)
from gnomon.dynamics.coordinate_check import (
    CoordinateCheck,
    Subject,
    coordinate_check,
    width_exponents,
)
from gnomon.dynamics.curvature import (
    Eigenpairs,
    Eigenvalues,
    adam_denominator,
    heavy_ball_optimum,
    hessian_operator,
    hessian_vector_product,
    stability_ratio,
    top_eigenpairs,
    top_eigenvalues,
)
from gnomon.dynamics.equilibrium import (
    Equilibrium,
    equilibrium,
    equilibrium_angle,
    rule_of,
)
from gnomon.dynamics.lanczos import (
    Ritz,
    Tridiagonal,
    lanczos,
    ritz,
    ritz_vectors,
)
from gnomon.dynamics.landscape import (
    Barrier,
    filter_direction,
    interpolate,
    linear_barrier,
    loss_line,
    loss_plane,
)
from gnomon.dynamics.layers import ALL, Layers, layers_of, pool
from gnomon.dynamics.lipschitz import lipschitz_bound
from gnomon.dynamics.matching import (
    Matching,
    mlp_spec,
    permute,
    singular_alignment,
    weight_matching,
)
from gnomon.dynamics.measure import (
    MeasureState,
    mean_gradient_cosines,
    measure,
    records,
)
from gnomon.dynamics.motion import Motion, Sums, layer_motion, leaf_sums, motion
from gnomon.dynamics.names import Name, name_of, named, parse
from gnomon.dynamics.noise_scale import (
    BatchCost,
    GroupGradients,
    NoiseScale,
    batch_cost,
    compare_groups,
    group_gradients,
    noise_scale,
    two_batch_noise_scale,
)
from gnomon.dynamics.pruning import (
    el2n_scores,
    grand_scores,
    keep_mask,
)
from gnomon.dynamics.singular import (
    Rank,
    as_matrix,
    gradient_ranks,
    rank,
    spectral_norms,
    start_vectors,
)
from gnomon.dynamics.spectrum import (
    Spectrum,
    density,
    hessian_spectrum,
    lanczos_quadrature,
    wasserstein_distance,
)
from gnomon.dynamics.trace import Trace, hutch_plus_plus_trace, hutchinson_trace
from gnomon.parameters.gram import conv_gram_bound, gram_bound
from gnomon.parameters.spectral import largest_singular_value

__all__ = [
    "ALL",
    "Activations",
    "Barrier",
    "BatchCost",
    "CoordinateCheck",
    "Eigenpairs",
    "Eigenvalues",
    "Equilibrium",
    "GroupGradients",
    "LayerActivations",
    "Layers",
    "Logits",
    "Matching",
    "MeasureState",
    "Motion",
    "Name",
    "NoiseScale",
    "Rank",
    "Ritz",
    "Spectrum",
    "Subject",
    "Sums",
    "Trace",
    "Tridiagonal",
    "activations",
    "adam_denominator",
    "as_matrix",
    "batch_cost",
    "compare_groups",
    "conv_gram_bound",
    "coordinate_check",
    "density",
    "el2n_scores",
    "equilibrium",
    "equilibrium_angle",
    "filter_direction",
    "gradient_ranks",
    "gram_bound",
    "grand_scores",
    "group_gradients",
    "heavy_ball_optimum",
    "hessian_operator",
    "hessian_spectrum",
    "hessian_vector_product",
    "hutch_plus_plus_trace",
    "hutchinson_trace",
    "interpolate",
    "keep_mask",
    "lanczos",
    "lanczos_quadrature",
    "largest_singular_value",
    "layer_activations",
    "layer_motion",
    "layers_of",
    "leaf_sums",
    "linear_barrier",
    "lipschitz_bound",
    "logits",
    "loss_line",
    "loss_plane",
    "mean_gradient_cosines",
    "measure",
    "mlp_spec",
    "motion",
    "name_of",
    "named",
    "noise_scale",
    "parse",
    "permute",
    "pool",
    "rank",
    "records",
    "ritz",
    "ritz_vectors",
    "rule_of",
    "singular_alignment",
    "spectral_norms",
    "stability_ratio",
    "start_vectors",
    "top_eigenpairs",
    "top_eigenvalues",
    "two_batch_noise_scale",
    "wasserstein_distance",
    "weight_matching",
    "width_exponents",
]
