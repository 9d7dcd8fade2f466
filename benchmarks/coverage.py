"""How often intervals hold and verdicts err, on simulated runs whose truth is known.

    python benchmarks/coverage.py [--parts=laws,verdicts,grids] [--studies=200]
        [--sweeps=200] [--points=FILE]

First the law ``L = 1.817 + 482 / N^0.348 + 2085 / D^0.366`` is measured with noise on
IsoFLOP designs between 6e18 and 3e21 FLOPs and fitted by `fit_chinchilla`; counted is
how often 95 % intervals hold each parameter, and the compute-optimal size and its loss
at 1e23 FLOPs, 30 times beyond the runs. Noise is either normal, 0.5 % of the loss, or
Student's t with three degrees of freedom, scale 0.4 %, which has outliers; or unequal,
each run up or down by a size of its own, 0.6 % in the middle, that falls tenfold from
the smallest model to the largest.

Then whole sweeps are simulated (three widths, five lengths, six learning rates, losses
of a byte language model) and go through the report's own analysis: an optimizer
against itself under other seeds, and one planted 1.10 times as fast.

There all grids hold the same rates. In the part ``grids`` those of each optimizer lie
at random against the optimum, a factor 2 or 4 apart, and the optimum is taken on the
grid or read between its points.

With ``--points``, a CSV with columns ``parameters,training_flop,loss`` is fitted too,
without the five runs of fewest tokens a parameter, and timed; then the runs are drawn
again from that law, each off by its own residual, up or down.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import _timing
import numpy as np

from gnomon.experiments.report.analysis import Analysis, analyze
from gnomon.scaling import fit_chinchilla

RESULTS = Path(__file__).parent / "results" / "coverage.json"
LAW = {"E": 1.817, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}
TARGET = 1e23
DESIGNS = {24: (4, 6), 48: (6, 8), 108: (9, 12)}


def unequal(rng: np.random.Generator, params: np.ndarray) -> np.ndarray:
    """Up or down by sizes that are the same in every study."""
    own = np.exp(1.2 * np.random.default_rng(1).standard_normal(len(params)))
    rank = np.argsort(np.argsort(params))
    size = 0.006 * own * np.geomspace(3, 0.3, len(params))[rank]
    return size * rng.choice([-1.0, 1.0], len(params))


NOISES = {
    "normal": lambda rng, params: 0.005 * rng.standard_normal(len(params)),
    "student": lambda rng, params: 0.004 * rng.standard_t(3, len(params)),
    "unequal": unequal,
}
WIDTHS, LENGTHS, SUBSET = (16, 32, 64), (140, 200, 280, 400, 560), (200, 400)
RATES, OPTIMUM = 3e-3 * 2.0 ** np.arange(-3, 3), 3.6e-3


def truth() -> dict[str, float]:
    a, b = LAW["alpha"], LAW["beta"]
    size = (a * LAW["A"] / (b * LAW["B"])) ** (1 / (a + b)) * (TARGET / 6) ** (
        b / (a + b)
    )
    loss = LAW["E"] + LAW["A"] / size**a + LAW["B"] / (TARGET / 6 / size) ** b
    return {**LAW, "optimal size": size, "extrapolated loss": loss}


def design(budgets: int, sizes: int) -> tuple[np.ndarray, np.ndarray]:
    budget = np.geomspace(6e18, 3e21, budgets)[:, None] / 6
    params = (np.sqrt(budget / 20) * np.geomspace(0.2, 5, sizes)).ravel()
    return params, np.repeat(budget, sizes) / params


def coverage(runs: int, noise: str, studies: int, bootstrap: int, delta: float) -> dict:
    """Share of studies in which an interval holds the truth."""
    params, tokens = design(*DESIGNS[runs])
    clean = LAW["E"] + LAW["A"] / params ** LAW["alpha"]
    clean = clean + LAW["B"] / tokens ** LAW["beta"]
    true, held = truth(), []
    for study in range(studies):
        rng = np.random.default_rng([runs, study])
        law = fit_chinchilla(
            params=params,
            tokens=tokens,
            loss=clean * np.exp(NOISES[noise](rng, params)),
            bootstrap=bootstrap,
            delta=delta,
            seed=study,
        )
        best = law.optimal(TARGET)
        ends = [law.interval(name) for name in LAW]
        ends += [best.params[1:], best.loss[1:]]
        held.append(
            [
                low <= t <= high
                for (low, high), t in zip(ends, true.values(), strict=True)
            ]
        )
    rates = np.mean(held, axis=0)
    return {
        "runs": runs,
        "noise": noise,
        "delta": delta,
        "interval": "bootstrap" if bootstrap else "covariance",
        "studies": studies,
        **{name: float(rate) for name, rate in zip(true, rates, strict=True)},
    }


def reached(params: float, steps: float, speed: float) -> float:
    """The loss at the best learning rate, without noise."""
    return 0.8 + 12 * params**-0.3 + 25 * (steps * speed * 1024) ** -0.3


def sweep(
    rng: np.random.Generator, gain: float, seeds: int, grids: tuple = (RATES, RATES)
) -> dict[str, np.ndarray]:
    """A run table: optimizers A and B, B reaching A's loss ``gain`` times sooner.

    A seed's luck (0.01) is shared by both, since it fixes initialization and data
    order; a trial's own (0.006) is not.
    """
    rows = []
    for width in WIDTHS:
        params = 24 * width**2 + 256 * width
        for steps in LENGTHS:
            luck = 0.01 * rng.standard_normal(seeds)
            for label, speed, rates in zip("AB", (1.0, gain), grids, strict=True):
                if label == "B" and steps not in SUBSET:
                    continue
                own = 0.006 * rng.standard_normal((len(rates), seeds))
                bowl = 0.03 * np.log(rates / OPTIMUM) ** 2
                found = reached(params, steps, speed) + bowl[:, None] + luck + own
                rows += [
                    (label, seed, width, steps, rate, params, found[i, seed])
                    for i, rate in enumerate(rates)
                    for seed in range(seeds)
                ]
    label, *numbers = zip(*rows, strict=True)
    seed, width, steps, rate, params, loss = (np.array(x, float) for x in numbers)
    return {
        "id": np.array([str(i) for i in range(len(rows))], dtype=object),
        "label": np.array(label, dtype=object),
        "status": np.array(["finished"] * len(rows), dtype=object),
        "seed": seed,
        "steps": steps,
        "model.width": width,
        "optimizer.learning_rate": rate,
        "parameters": params,
        "compute": 6 * params * 1024 * steps,
        "final.validation_loss": loss,
    }


def judged(analyses: list[Analysis], gain: float) -> dict:
    """How often the report's paired interval leaves out "no difference"."""
    ends = np.array(
        [c.log_interval for a in analyses for c in a.comparisons if not c.reason]
    )
    low, high = np.array([a.summaries[0].log_interval for a in analyses]).T
    truth = np.log(gain)
    return {
        "different at a scale": float(np.mean((ends[:, 0] > 0) | (ends[:, 1] < 0))),
        "different over all scales": float(np.mean((low > 0) | (high < 0))),
        "truth held over all scales": float(np.mean((low <= truth) & (truth <= high))),
    }


def verdicts(gain: float, seeds: int, sweeps: int) -> dict:
    """Verdicts where both optimizers' grids hold the same rates."""
    analyses = [
        analyze(sweep(np.random.default_rng([seeds, number]), gain, seeds))
        for number in range(sweeps)
    ]
    case = {"gain": gain, "seeds": seeds, "sweeps": sweeps}
    return {**case, **judged(analyses, gain)}


def placed(gain: float, seeds: int, sweeps: int, factor: float, between: bool) -> dict:
    """Verdicts where grids lie at random, and how far tuned losses lie too high."""
    analyses = []
    for number in range(sweeps):
        rng = np.random.default_rng([seeds, number])
        shares = rng.uniform(size=(2, 1))
        grids = tuple(OPTIMUM * factor ** (np.arange(-3, 3) + shares))
        table = sweep(rng, gain, seeds, grids)
        analyses.append(analyze(table, interpolate=between))
    excess = [
        cell.lowest[1]
        - reached(
            cell.scale.parameters, cell.scale.steps, {"A": 1.0, "B": gain}[cell.label]
        )
        for analysis in analyses
        for cell in analysis.cells
    ]
    return {
        "gain": gain,
        "rates apart": factor,
        "seeds": seeds,
        "read between": "yes" if between else "no",
        "sweeps": sweeps,
        **judged(analyses, gain),
        "tuned loss too high": float(np.mean(excess)),
    }


def table_of(path: Path) -> dict[str, np.ndarray]:
    """The runs of a file, without the five of fewest tokens a parameter."""
    data = np.genfromtxt(path, delimiter=",", names=True)
    params, loss = data["parameters"], data["loss"]
    tokens = data["training_flop"] / (6 * params)
    keep = np.argsort(tokens / params)[5:]
    return {"params": params[keep], "tokens": tokens[keep], "loss": loss[keep]}


def published(path: Path) -> dict:
    """The law of a table of runs, with the seconds it takes."""
    runs = table_of(path)
    start = time.perf_counter()
    plain = fit_chinchilla(**runs, bootstrap=0)
    middle = time.perf_counter()
    law = fit_chinchilla(**runs, bootstrap=1000)
    law.interval("E")
    end = time.perf_counter()
    return {
        "runs": len(runs["loss"]),
        "parameters": law.parameters,
        "intervals": {name: law.interval(name) for name in LAW},
        "intervals without bootstrap": {name: plain.interval(name) for name in LAW},
        "conditioning": law.conditioning._asdict(),
        "seconds": middle - start,
        "seconds with 1000 draws": end - middle,
    }


def resigned(path: Path, studies: int, bootstrap: int) -> dict:
    """Share of studies that hold the law of a table, whose errors keep their sizes."""
    runs = table_of(path)
    law = fit_chinchilla(**runs)
    clean = runs.pop("loss") / np.exp(law.residuals)
    held = []
    for study in range(studies):
        sign = np.random.default_rng(study).choice([-1.0, 1.0], len(clean))
        loss = clean * np.exp(sign * np.abs(law.residuals))
        found = fit_chinchilla(**runs, loss=loss, bootstrap=bootstrap, seed=study)
        ends = [found.interval(name) for name in LAW]
        true = law.parameters.values()
        held.append(
            [low <= t <= high for (low, high), t in zip(ends, true, strict=True)]
        )
    return {
        "runs": len(clean),
        "noise": "its residuals, up or down",
        "interval": "bootstrap" if bootstrap else "covariance",
        "studies": studies,
        **dict(zip(LAW, np.mean(held, axis=0).tolist(), strict=True)),
    }


def laws(studies: int, bootstrap: int, designs: list[int]) -> list[dict]:
    """Every design and noise at the published delta, one design at a larger one."""
    cases = [(runs, noise, 1e-3) for runs in designs for noise in NOISES]
    if len(designs) > 1:
        cases += [(48, noise, 1e-2) for noise in ("normal", "student")]
    return [
        coverage(runs, noise, studies, draws, delta)
        for runs, noise, delta in cases
        for draws in (0, bootstrap)
    ]


def calls(sweeps: int) -> list[dict]:
    """Equal optimizers and a planted difference, with few and many seeds."""
    return [
        verdicts(gain, seeds, sweeps) for gain in (1.0, 1.1) for seeds in (3, 4, 6, 8)
    ]


def offsets(sweeps: int) -> list[dict]:
    """Equal optimizers and a planted difference, on wide and narrow grids."""
    return [
        placed(gain, seeds, sweeps, factor, between)
        for gain in (1.0, 1.3)
        for factor in (2.0, 4.0)
        for seeds in (3, 5)
        for between in (False, True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="laws,verdicts,grids")
    parser.add_argument("--designs", default="24,48,108", help="runs of a study")
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--sweeps", type=int, default=200)
    parser.add_argument("--bootstrap", type=int, default=200)
    parser.add_argument("--points", type=Path)
    arguments = parser.parse_args()
    parts = {
        "laws": lambda: laws(
            arguments.studies,
            arguments.bootstrap,
            [int(runs) for runs in arguments.designs.split(",")],
        ),
        "verdicts": lambda: calls(arguments.sweeps),
        "grids": lambda: offsets(arguments.sweeps),
    }
    chosen = {name: parts[name] for name in arguments.parts.split(",") if name}
    if arguments.points:
        points, studies = arguments.points, arguments.studies
        chosen["points"] = lambda: [published(points)]
        chosen["points again"] = lambda: [
            resigned(points, studies, draws) for draws in (0, arguments.bootstrap)
        ]
    for name, measure in chosen.items():
        environment = _timing.environment()
        # Where a file lies on this machine is of no use to a reader.
        if arguments.points:
            folder = f"{arguments.points.parent}/"
            environment["command"] = environment["command"].replace(folder, "")
        begin = time.process_time()
        rows = measure()
        seconds = time.process_time() - begin
        plain = {
            column: "" if isinstance(value, str) else ".3g"
            for column, value in rows[0].items()
            if not isinstance(value, dict)
        }
        print(_timing.table(rows, plain), flush=True)
        # Parts are kept from earlier runs, each with the circumstances of its own.
        record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        record[name] = {**environment, "processor_seconds": seconds, "rows": rows}
        _timing.write(RESULTS, record)
    print(f"wrote {RESULTS}", file=sys.stderr)


if __name__ == "__main__":
    main()
