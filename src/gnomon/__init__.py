"""gnomon: what optimizers do to weights, and whether it stays true at the next scale.

The rooms are subpackages and nothing is imported from here, so that
``import gnomon.optimizers`` costs what ``import optax`` costs:

* ``gnomon.parameters``: what a tree of parameters is: names, units, selections.
* ``gnomon.optimizers``: optax transforms.
* ``gnomon.models``: Flax models.
* ``gnomon.kernels``: fused operations for TPU and GPU.
* ``gnomon.dynamics``: probes of a training run.
* ``gnomon.scaling``: law fits from run tables.
* ``gnomon.experiments``: configs, data, training, sweeps, reports.
"""
