"""Records trajectories of the authors' MoMo and MoMo-Adam into ``momo.npz``.

Run it where PyTorch is installed; the tests read the file and need neither:

    pip install torch==2.13.0 momo-opt==0.1.0 numpy
    python tests/golden/record_momo.py

The loss is an ill-conditioned quadratic with minimum 0.4 whose center moves and whose
height wavers from step to step, so that averages differ from last values, the step size
is sometimes the cap and sometimes the model's, and an estimated lower bound is reset.
"""

import pathlib
from importlib.metadata import version

import numpy as np

STEPS = 60
RECORDED = (1, 2, 20, STEPS)
SHAPES = {
    "bias": (3,),
    "conv": (2, 2, 2, 3),
    "dense": (4, 3),
    "embedding": (5, 3),
    "query": (3, 2, 2),
}
MOMO = {"lr": 1.0, "beta": 0.9}
ADAM = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8}
RUNS = {
    "momo": MOMO,
    "momo_decay": MOMO | {"weight_decay": 0.1, "lb": 0.2},
    "momo_corrected": MOMO | {"weight_decay": 0.1, "bias_correction": True},
    "momo_estimate": MOMO | {"weight_decay": 0.05, "use_fstar": True, "lb": 0.1},
    "momo_estimate_corrected": MOMO | {"use_fstar": True, "bias_correction": True},
    "momo_adam": ADAM,
    "momo_adam_decay": ADAM | {"weight_decay": 0.1, "lb": 0.2},
    "momo_adam_adamw": ADAM | {"weight_decay": 0.1, "divide": False},
    "momo_adam_estimate": ADAM | {"weight_decay": 0.05, "use_fstar": True, "lb": 0.1},
}


def weights() -> dict[str, np.ndarray]:
    """Where every run starts."""
    return {
        name: np.sin(np.arange(np.prod(shape)) + len(name)).reshape(shape)
        for name, shape in SHAPES.items()
    }


def loss(params: dict, step: int) -> tuple[float, dict[str, np.ndarray]]:
    """The value at some weights, and the gradient."""
    value, grads = 0.4 + 0.3 * np.cos(2.3 * step) ** 2, {}
    for name, weight in params.items():
        index = np.arange(weight.size).reshape(weight.shape)
        curvature = 10.0 ** (index / weight.size - 0.8)
        away = weight - 0.2 * np.cos(3 * index + 5 * step)
        value += 0.5 * np.sum(curvature * away**2)
        grads[name] = curvature * away
    return float(value), grads


def main():
    """Writes the file beside this script."""
    import momo
    import torch

    # The package makes scalars of the default dtype.
    torch.set_default_dtype(torch.float64)
    packages = [f"{name}=={version(name)}" for name in ("momo-opt", "torch", "numpy")]
    record = {"versions": np.array(packages)}
    for run, options in RUNS.items():
        params = {n: torch.nn.Parameter(torch.tensor(w)) for n, w in weights().items()}
        make = momo.MomoAdam if run.startswith("momo_adam") else momo.Momo
        optimizer = make(list(params.values()), **options)
        trajectory, bounds = [], []
        for step in range(STEPS):
            at = {name: param.detach().numpy() for name, param in params.items()}
            value, grads = loss(at, step)
            for name, param in params.items():
                param.grad = torch.tensor(grads[name])
            optimizer.step(loss=torch.tensor(value))
            leaves = [param.detach().numpy().ravel() for param in params.values()]
            trajectory.append(np.concatenate(leaves))
            bounds.append(optimizer.lb)
        record[run] = np.stack([trajectory[step - 1] for step in RECORDED])
        record[f"{run}/f_min"] = np.array(bounds, np.float64)
    np.savez_compressed(pathlib.Path(__file__).with_name("momo.npz"), **record)


if __name__ == "__main__":
    main()
