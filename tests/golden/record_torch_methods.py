"""Records trajectories of published PyTorch optimizers into ``torch_methods.npz``.

Run it where PyTorch is installed; the tests read the file and need neither:

    pip install torch==2.14.1 pytorch-optimizer==4.1.0 timm==1.0.31 numpy
    python tests/golden/record_torch_methods.py

Weights are stored as PyTorch stores them, output units along axis 0. The gradient is
noise from the file and a part along the weights, so that a difference grows.
"""

import pathlib
from importlib.metadata import version

import numpy as np

STEPS = 24
RECORDED = (1, 2, 5, STEPS)
SHAPES = {"kernel": (3, 4), "bias": (3,)}
PACKAGES = ("torch", "pytorch-optimizer", "timm", "numpy")
# By the name of a run: the package, the class, its arguments.
RUNS = {
    "lars": ("pytorch_optimizer", "LARS", dict(lr=0.7, weight_decay=0.1, momentum=0.8)),
    "lars_nesterov": (
        "pytorch_optimizer",
        "LARS",
        dict(lr=0.7, weight_decay=0.1, momentum=0.8, nesterov=True),
    ),
    "lamb": (
        "timm.optim.lamb",
        "Lamb",
        dict(
            lr=0.05,
            betas=(0.8, 0.95),
            eps=1e-3,
            weight_decay=0.1,
            max_grad_norm=None,
            always_adapt=True,
        ),
    ),
    "novograd": (
        "pytorch_optimizer",
        "NovoGrad",
        dict(lr=0.05, betas=(0.8, 0.95), weight_decay=0.1),
    ),
    # Its eps is added before the bias corrections, so it is zero here.
    "subset_norm": (
        "pytorch_optimizer",
        "AdamWSN",
        dict(lr=0.05, betas=(0.8, 0.95), eps=0.0, subset_size=4, group=dict(sn=True)),
    ),
    "sgdw": (
        "timm.optim.sgdw",
        "SGDW",
        dict(lr=0.05, momentum=0.8, weight_decay=0.1),
    ),
}


def gradient(weight, noise):
    """The gradient at a weight."""
    return noise + 0.3 * weight


def main():
    """Writes the file beside this script."""
    import importlib

    import torch

    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
    noise = {
        name: generator.normal(size=(STEPS, *shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    record = {"versions": np.array([f"{name}=={version(name)}" for name in PACKAGES])}
    record |= {f"weights/{name}": weight for name, weight in weights.items()}
    record |= {f"noise/{name}": value for name, value in noise.items()}
    for run, (package, name, options) in RUNS.items():
        make = getattr(importlib.import_module(package), name)
        params = {n: torch.nn.Parameter(torch.tensor(w)) for n, w in weights.items()}
        group = {"params": list(params.values()), **options.get("group", {})}
        settings = {key: x for key, x in options.items() if key != "group"}
        optimizer = make([group], **settings)
        trajectory = []
        for step in range(STEPS):
            for n, param in params.items():
                drawn = noise[n][step].astype(np.float64)
                param.grad = torch.tensor(gradient(param.detach().numpy(), drawn))
            optimizer.step()
            trajectory.append({n: p.detach().numpy().copy() for n, p in params.items()})
        for n in SHAPES:
            record[f"{run}/{n}"] = np.stack([trajectory[i - 1][n] for i in RECORDED])
    np.savez_compressed(pathlib.Path(__file__).with_name("torch_methods.npz"), **record)


if __name__ == "__main__":
    main()
