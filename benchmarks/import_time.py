"""What it costs to import the optimizers, beside `import optax`.

    python benchmarks/import_time.py [--repeats=15]

Each sample is a process of its own, which times the statement alone; the statements
follow each other in every round, and the order is turned round from round to round.
`import gnomon.optimizers` loads no method; the others load one and all of them.
`ratio` is that of the fastest samples, `median_ratio` that of the medians.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from _timing import environment, ratios, table, write

RESULTS = Path(__file__).parent / "results" / "import_time.json"
BASELINE = "import optax"
STATEMENTS = (
    BASELINE,
    "import gnomon.optimizers",
    "from gnomon.optimizers import adamp",
    "from gnomon.optimizers import *",
)
COLUMNS = {"statement": "", "ms": ".0f", "ratio": ".2f", "median_ratio": ".2f"}
SCRIPT = """
import time
begin = time.perf_counter()
{statement}
print(time.perf_counter() - begin)
"""


def sample(statement: str) -> float:
    """Seconds of the statement in a new process."""
    command = [sys.executable, "-c", SCRIPT.format(statement=statement)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path, default=RESULTS)
    flags = parser.parse_args()
    samples: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    order = list(STATEMENTS)
    for number in range(1 + flags.repeats):  # the first round only warms the disk
        for statement in order:
            seconds = sample(statement)
            if number:
                samples[statement].append(seconds)
        order.reverse()
    rows = [
        {
            "statement": statement,
            "ms": statistics.median(seconds) * 1e3,
            **ratios(seconds, samples[BASELINE]),
        }
        for statement, seconds in samples.items()
    ]
    print(table(rows, COLUMNS))
    write(flags.output, environment() | {"rows": rows})


if __name__ == "__main__":
    main()
