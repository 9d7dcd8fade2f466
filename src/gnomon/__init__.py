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

import os as _os

# A checkout without symbolic links has text files in place of the rooms.
_texts = [
    entry.name
    for entry in _os.scandir(_os.path.dirname(__file__))
    if entry.is_file() and "." not in entry.name
]
if _texts:
    raise ImportError(
        "src/gnomon holds files in place of symbolic links, for git made this checkout "
        f"without them: {', '.join(sorted(_texts))}. Run `git config core.symlinks "
        "true` and `git restore src/gnomon` (on Windows in developer mode), or install "
        "a wheel."
    )
