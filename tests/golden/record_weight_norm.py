"""Records trajectories of PyTorch's weight normalization into ``weight_norm.npz``.

Run it where PyTorch is installed; the tests read the file and need neither:

    pip install torch==2.13.0 numpy
    python tests/golden/record_weight_norm.py

Weights are stored as PyTorch stores them, output units along axis 0, which is the axis
``torch.nn.utils.parametrizations.weight_norm`` keeps; the bias is not normalized. The
optimizers decay direction and scale alike.
"""

import pathlib
from importlib.metadata import version

import numpy as np

STEPS = 54
RECORDED = (1, 2, 3, 18, STEPS)
SHAPES = {
    "dense": (3, 4),
    "conv": (3, 2, 1, 2),
    "embedding": (4, 3),
    "query": (4, 3),
    "out": (3, 4),
    "bias": (3,),
}
RUNS = {
    "sgd": ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    "adam": ("Adam", {"lr": 0.03, "betas": (0.9, 0.99), "eps": 1e-8}),
    "adamw": (
        "AdamW",
        {"lr": 0.03, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.05},
    ),
}


def gradient(weight: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The gradient with respect to the weight: a pull to zero, and noise."""
    return noise + 0.3 * weight


def main():
    """Writes the file beside this script."""
    import torch

    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
    noise = {
        name: generator.normal(size=(STEPS, *shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    packages = [f"{name}=={version(name)}" for name in ("torch", "numpy")]
    record = {"versions": np.array(packages)}
    record |= {f"weights/{name}": weight for name, weight in weights.items()}
    record |= {f"noise/{name}": value for name, value in noise.items()}
    for run, (kind, options) in RUNS.items():
        modules = torch.nn.ModuleDict()
        for name, weight in weights.items():
            modules[name] = torch.nn.Module()
            modules[name].weight = torch.nn.Parameter(torch.tensor(weight))
            if weight.ndim > 1:
                torch.nn.utils.parametrizations.weight_norm(modules[name], dim=0)
        optimizer = getattr(torch.optim, kind)(modules.parameters(), **options)
        trajectory = {name: [] for name in modules}
        for step in range(STEPS):
            optimizer.zero_grad()
            for name, module in modules.items():
                weight = module.weight
                drawn = noise[name][step].astype(np.float64)
                grad = gradient(weight.detach().numpy(), drawn)
                weight.backward(torch.tensor(grad))
            optimizer.step()
            for name, module in modules.items():
                trajectory[name].append(module.weight.detach().numpy().copy())
        for name, weights_at in trajectory.items():
            record[f"{run}/{name}"] = np.stack([weights_at[i - 1] for i in RECORDED])
    np.savez_compressed(pathlib.Path(__file__).with_name("weight_norm.npz"), **record)


if __name__ == "__main__":
    main()
