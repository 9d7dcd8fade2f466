"""Three processes on one folder: each trial is trained exactly once.

    python tests/experiments/crash/processes.py --rounds 20 --trials 240

Each process is given the same sweep, with one lane, and each round the same new folder.
They note every training that they begin. With ``--stand_in`` a training is its files
without its numbers, so that processes meet at the folder's locks as often as they can.
Prints JSON; the exit status is 1 if a trial was trained twice or not at all.
"""

import argparse
import collections
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
PROCESSES = 3


def stand_in(chunk: Any, *_: Any, **__: Any) -> list[dict[str, Any]]:
    """In the place of `engine.run`: a row of metrics and a result a trial."""
    from gnomon.experiments.records.metrics import MetricsWriter

    for folder in chunk.folders:
        with MetricsWriter(folder, tensorboard=False) as writer:
            writer.write(1, {"train_loss": 1.0})
    return [{"trial": t.id, "status": "finished", "final": {}} for t in chunk.trials]


def work(scratch: Path, number: int, trials: int, rounds: int, fake: bool) -> None:
    """One of the processes."""
    import jax
    from runs import CONFIG

    from gnomon.experiments import sweep
    from gnomon.experiments.config import defaults, override, plain
    from gnomon.experiments.config.grid import over
    from gnomon.experiments.config.trials import make_trials
    from gnomon.experiments.trial import engine

    jax.config.update("jax_num_cpu_devices", 1)
    train = stand_in if fake else engine.run
    once = {"steps": 1, "checkpoint_every": 1, "evaluate.every": 0}
    config = override(override(plain(defaults()), CONFIG), once)
    rates = [1e-3 * (1 + i) for i in range(trials)]
    swept = sweep.Sweep(make_trials(config, over("optimizer.learning_rate", rates)), 1)
    swept.lanes(swept.trials[:1])
    for turn in range(rounds):
        with open(scratch / f"{turn}-{number}.log", "w") as log:

            def noted(chunk: Any, *a: Any, log: Any = log, **k: Any) -> list[dict]:
                log.writelines(trial.id + "\n" for trial in chunk.trials)
                return train(chunk, *a, **k)

            engine.run = noted
            # All start together: a round begins when the last of them is there.
            (scratch / f"{turn}-{number}.here").touch()
            while len(list(scratch.glob(f"{turn}-*.here"))) < PROCESSES:
                time.sleep(0.002)
            sweep.prepare(swept, scratch / str(turn), {})
            sweep.run_sweep(swept, scratch / str(turn), stream=io.StringIO())


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=240)
    parser.add_argument("--stand_in", action="store_true")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        number, scratch = options.worker
        work(
            Path(scratch),
            int(number),
            options.trials,
            options.rounds,
            options.stand_in,
        )
        return 0
    twice = missing = lost = 0
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, *sys.argv, "--worker"]
        started = [
            subprocess.Popen([*command, str(i), scratch]) for i in range(PROCESSES)
        ]
        failed = sum(process.wait() != 0 for process in started)
        shares: collections.Counter[int] = collections.Counter()
        for turn in range(options.rounds):
            trained: collections.Counter[str] = collections.Counter()
            for number in range(PROCESSES):
                log = Path(scratch, f"{turn}-{number}.log")
                lines = log.read_text().split() if log.exists() else []
                trained.update(lines)
                shares[number] += len(lines)
            twice += sum(count > 1 for count in trained.values())
            folders = list(Path(scratch, str(turn)).glob("trials/*"))
            done = [folder for folder in folders if (folder / "result.json").exists()]
            missing += options.trials - len(done)
            rows = [(folder / "metrics.jsonl").read_text() for folder in done]
            lost += sum(text.count("\n") != 1 for text in rows)
    found = {"failed": failed, "twice": twice, "missing": missing, "lost_rows": lost}
    about = {"rounds": options.rounds, "trials": options.trials}
    print(json.dumps(about | found | {"by_process": sorted(shares.values())}))
    return min(sum(found.values()), 1)


if __name__ == "__main__":
    sys.exit(main())
