"""What a large folder of token shards costs: to open, and to draw batches from.

    python benchmarks/token_shards.py [--large=10000] [--batches=200]

A folder of 10 MB and one of 10 GB, each opened as ``data=dict(name='tokens')`` in a
process of its own that then draws the same number of batches. The files are sparse, all
zeros, so that they take no room: what is shown is the time to open and the memory, and
nothing of how fast a disk is. Memory is what drawing adds to the process at its peak,
and the peak itself. Where windows were mapped and not read, drawing would add the pages
that were touched: `mapped` draws the same batches through `numpy.memmap`, as most
loaders do. Processes take turns, a few rounds of them; rows hold medians.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _timing import environment, table, write

RESULTS = Path(__file__).parent / "results" / "token_shards.json"
SHARD = 100_000_000  # bytes, as is usual
ROWS = ("open_ms", "drawing_mb", "peak_mb", "touched_mb")
COLUMNS = {"folder": "", "reads": "", "shards": "", "gb": ".2f"} | dict.fromkeys(
    ROWS, ".1f"
)
CHILD = """
import json, sys, time
from pathlib import Path
import grain
import numpy as np
from gnomon.experiments.data import load

def memory(name):
    status = Path("/proc/self/status").read_text()
    return int(status.split(name + ":")[1].split()[0]) / 1e3

path, batches, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
section = dict(name="tokens", path=path, length=1024, vocabulary=50257)
begin = time.perf_counter()
data = load(section)
opened = time.perf_counter() - begin
windows, order = data.train["tokens"], data.order(batch=64, seed=0)
if how == "mapped":
    files = sorted(Path(path).glob("*.bin"))
    maps = [np.memmap(file, np.uint16, "r", 1024) for file in files]
    each = len(windows) // len(maps)
    def draw(indices):
        return np.stack([maps[i // each][i % each * 1024 :][:1025] for i in indices])
else:
    draw = windows.__getitem__
draw(order.next())
before = memory("VmRSS")
for _ in range(batches):
    batch = draw(order.next())
    assert batch.shape == (64, 1025) and not batch.any()
print(json.dumps({
    "open_ms": opened * 1e3,
    "drawing_mb": memory("VmHWM") - before,
    "peak_mb": memory("VmHWM"),
    "touched_mb": batches * batch.nbytes / 1e6,
    "gb": windows.shape[0] * 1024 * 2 / 1e9,
}))
"""


def make(folder: Path, megabytes: int) -> int:
    """Makes sparse shards with the header of GPT-2's; returns how many."""
    folder.mkdir()
    size = min(SHARD, megabytes * 10**6)
    number = megabytes * 10**6 // size
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, (size - header.nbytes) // 2
    for shard in range(number):
        with open(folder / f"{shard:05d}.bin", "wb") as file:
            file.write(header.tobytes())
            file.truncate(size)
    return number


def measure(folder: Path, batches: int, how: str) -> dict[str, float]:
    command = [sys.executable, "-c", CHILD, str(folder), str(batches), how]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=10, help="megabytes")
    parser.add_argument("--large", type=int, default=10_000, help="megabytes")
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: Path(scratch, name) for name in ("small", "large")}
        shards = {name: make(f, getattr(flags, name)) for name, f in folders.items()}
        ways = [("small", "read"), ("large", "read"), ("large", "mapped")]
        samples: dict[tuple[str, str], list[dict]] = {way: [] for way in ways}
        for _ in range(flags.repeats):
            for name, how in ways:
                found = measure(folders[name], flags.batches, how)
                samples[name, how].append(found)
    rows = []
    for (name, how), found in samples.items():
        row = {"folder": name, "reads": how, "shards": shards[name]}
        medians = {
            key: statistics.median(sample[key] for sample in found) for key in found[0]
        }
        rows.append(row | medians)
    print(table(rows, COLUMNS))
    write(flags.output, environment() | {"rows": rows})
    small, large, _ = rows
    assert large["open_ms"] < 1000, "10 GB must open in under a second"
    assert large["peak_mb"] < 1.02 * small["peak_mb"], "memory must not follow the size"


if __name__ == "__main__":
    main()
