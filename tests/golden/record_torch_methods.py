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
LOW_RANK = dict(
    lr=0.05,
    betas=(0.8, 0.95),
    eps=0.0,
    group=dict(rank=2, update_proj_gap=1000, scale=0.25, projection_type="std"),
)
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
    # Its momentum and its denominator, and nothing else.
    "pnm": (
        "pytorch_optimizer",
        "Ranger21",
        dict(
            lr=0.05,
            betas=(0.8, 0.95),
            beta0=0.9,
            beta_softplus=5.0,
            eps=1e-3,
            num_iterations=100,
            disable_lr_scheduler=True,
            agc_clipping_value=1e9,
            centralize_gradients=False,
            normalize_gradients=False,
            lookahead_merge_time=1000,
            weight_decay=0.0,
            norm_loss_factor=0.0,
        ),
    ),
    "amsgrad": (
        "torch.optim",
        "Adam",
        dict(lr=0.05, betas=(0.8, 0.95), eps=0.0, amsgrad=True),
    ),
    "sgdw": (
        "timm.optim.sgdw",
        "SGDW",
        dict(lr=0.05, momentum=0.8, weight_decay=0.1),
    ),
    "scion": (
        "pytorch_optimizer",
        "SCION",
        dict(lr=0.05, momentum=0.2, scale=0.7, constraint=True),
    ),
    "normuon": (
        "pytorch_optimizer",
        "NorMuon",
        dict(
            groups=dict(
                kernel=dict(use_muon=True, lr=0.05, weight_decay=0.1, eps=0.0),
                bias=dict(
                    use_muon=False,
                    lr=0.05,
                    betas=(0.8, 0.95),
                    weight_decay=0.1,
                    eps=1e-3,
                ),
            ),
        ),
    ),
    # Its eps, too, is added before the bias corrections.
    "soap": (
        "pytorch_optimizer",
        "SOAP",
        dict(
            lr=0.05,
            betas=(0.8, 0.95),
            shampoo_beta=0.9,
            weight_decay=0.0,
            precondition_frequency=3,
            eps=0.0,
        ),
    ),
    # A basis from the first gradient, and none after it: there the second comes a step
    # earlier. Eps as above.
    "galore": ("pytorch_optimizer", "GaLore", LOW_RANK),
    "fira": ("pytorch_optimizer", "Fira", LOW_RANK),
    "conda": (
        "pytorch_optimizer",
        "Conda",
        dict(lr=0.05, betas=(0.8, 0.95), eps=0.0, update_proj_gap=1000, scale=0.5),
    ),
}


def in_float64():
    """Has pytorch-optimizer compute in float64 what it casts to less.

    Its polar factors are of bfloat16 and its bases of float32; its Scion adds 1e-8 to
    the root mean square of a bias.
    """
    import torch
    from pytorch_optimizer.optimizer import scion, soap
    from pytorch_optimizer.optimizer.muon import base, normuon
    from pytorch_optimizer.optimizer.utils import galore

    def newton_schulz(matrix, num_steps=5, weights=None, **_):
        a, b, c = 3.4445, -4.7750, 2.0315
        wide = matrix.size(-2) <= matrix.size(-1)
        x = (matrix if wide else matrix.mT) / matrix.norm()
        for _ in range(num_steps):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x if wide else x.mT

    for module in (scion, base, normuon):
        module.zero_power_via_newton_schulz_5 = newton_schulz
    scion.BiasRMS.lmo.__defaults__ = (0.0,)

    class Wide:
        float = float32 = torch.float64

        def __getattr__(self, name):
            return getattr(torch, name)

    soap.torch = galore.torch = Wide()


def gradient(weight, noise):
    """The gradient at a weight."""
    return noise + 0.3 * weight


def main():
    """Writes the file beside this script."""
    import importlib

    import torch

    in_float64()
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
        if "groups" in options:
            own = options["groups"]
            groups = [{"params": [params[n]], **own[n]} for n in params]
        else:
            groups = [{"params": list(params.values()), **options.get("group", {})}]
        settings = {n: x for n, x in options.items() if n not in ("group", "groups")}
        optimizer = make(groups, **settings)
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
