"""Records trajectories of the authors' AdamP and SGDP into ``adamp.npz``.

Run it where PyTorch is installed; the tests read the file and need neither:

    pip install torch==2.13.0 adamp==0.3.0 numpy
    python tests/golden/record_adamp.py

Weights are stored as PyTorch stores them, output units along axis 0. The gradient is
noise from the file, arranged around the current weight so that every outcome of the
test for scale invariance occurs: all units pass, only the layer passes, neither does.
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
OPTIONS = {"lr": 0.01, "weight_decay": 0.05, "delta": 0.1, "wd_ratio": 0.1}
RUNS = {
    "adamp": {"betas": (0.9, 0.99)},
    "adamp_nesterov": {"betas": (0.9, 0.99), "nesterov": True},
    "sgdp_aliased": {"momentum": 0.9, "dampening": 0.1},
    "sgdp_nesterov": {"momentum": 0.9, "nesterov": True},
}


def gradient(weight: np.ndarray, noise: np.ndarray, step: int) -> np.ndarray:
    """The gradient at a weight: orthogonal unit by unit, as a whole, or not at all."""
    if weight.ndim == 1:
        return noise
    rows, flat = weight.reshape(len(weight), -1), noise.reshape(len(weight), -1)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    whole = rows / np.linalg.norm(rows)
    outcome = step // 3 % 3
    if outcome == 0:
        flat = flat - units * np.sum(units * flat, axis=1, keepdims=True)
    elif outcome == 1:
        flat = flat + 3 * units * np.cos(np.arange(len(rows)))[:, None]
        flat = flat - whole * np.sum(whole * flat)
    else:
        flat = flat + whole * np.linalg.norm(flat)
    return flat.reshape(weight.shape)


def main():
    """Writes the file beside this script."""
    import adamp
    import torch

    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
    noise = {
        name: generator.normal(size=(STEPS, *shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    packages = [f"{name}=={version(name)}" for name in ("adamp", "torch", "numpy")]
    record = {"versions": np.array(packages)}
    record |= {f"weights/{name}": weight for name, weight in weights.items()}
    record |= {f"noise/{name}": value for name, value in noise.items()}
    for run, options in RUNS.items():
        params = {
            name: torch.nn.Parameter(torch.tensor(weight))
            for name, weight in weights.items()
        }
        make = adamp.AdamP if run.startswith("adamp") else adamp.SGDP
        optimizer = make(params.values(), **OPTIONS, **options)
        trajectory = {name: [] for name in params}
        for step in range(STEPS):
            for name, param in params.items():
                weight = param.detach().numpy()
                drawn = noise[name][step].astype(np.float64)
                param.grad = torch.tensor(gradient(weight, drawn, step))
            optimizer.step()
            for name, param in params.items():
                trajectory[name].append(param.detach().numpy().copy())
        for name, weights_at in trajectory.items():
            record[f"{run}/{name}"] = np.stack([weights_at[i - 1] for i in RECORDED])
    np.savez_compressed(pathlib.Path(__file__).with_name("adamp.npz"), **record)


if __name__ == "__main__":
    main()
