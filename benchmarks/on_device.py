"""All that is to be known of one accelerator, in under eight minutes.

    python benchmarks/on_device.py            # one GPU or TPU
    python benchmarks/on_device.py --quick    # a CPU: that it works, no measurement
    python benchmarks/on_device.py --wheels   # what a machine without a network needs
    python benchmarks/on_device.py --propose=FILE

It needs this checkout, not installed, Python 3.12, and the packages that --wheels
lists; sections that lack one say so, and the others run. Data is made here. In order:

- `device`: what it is, the bandwidth of a copy, the speed of a matrix product;
- `correct`: every kernel beside its definition in float64, on real and ragged shapes;
- `step`: a step of the 124M model, 32 sequences of 1,024 tokens, by each optimizer with
  its kernel (`+`) and without: tokens a second, share of the published peak (MFU),
  memory beside what the dry run says; and updates alone;
- `kernels`: the table of kernels.py;
- `sweep`: trials an hour as lanes of one program, and as a process each.

Each section is a process with a share of the time; what it leaves is the next one's. An
item that fails, dies or hangs is recorded with the reason and the end of what its
section printed, and the next one runs. Where JAX finds a CPU alone, nothing but
`device` runs without --quick. The file is written anew after each section, so that a
cut leaves what there is; it lies in the folder that --output or the variable OUT of the
environment names, or else in results. At the end, and with --propose, it says which
kernels beat XLA and deserve a place in `kernels.engine.choice.FASTER_THAN_XLA`, and
which lose and are to be deleted.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _device_bare
import _device_kernels as kernels
import _device_steps as steps
from _device_stages import OUT_OF_TIME, Section, command_of, drive, work

RESULTS = Path(__file__).parent / "results"
SECTIONS = {
    section.name: section
    for section in (
        # The first process of a machine reads its libraries from a cold disk.
        Section("device", 50, 90, steps.device_items, steps.device, steps.alive),
        Section("correct", 80, 60, kernels.check_items, kernels.check, steps.alive),
        Section("step", 140, 120, steps.step_items, steps.step, steps.alive),
        Section("kernels", 90, 80, kernels.time_items, kernels.timed, steps.alive),
        Section("sweep", 90, 90, steps.sweep_items, steps.sweep),
    )
}
MINUTES = 7.5
COLUMNS = {
    "step": ("method", "by", "step_ms", "tokens_s", "mfu", "peak_GB", "planned_GB"),
    "update": ("method", "by", "update_ms", "passes_GB_s", "compile_s"),
    "kernels": ("op", "shape", "dtype", "projects", "by", "us", "share", "to_xla"),
    "correct": ("op", "shape", "dtype", "projects", "by", "error", "right"),
    "sweep": ("by", "trials", "steps", "seconds", "trials_hour"),
}


def measure(settings: Mapping[str, Any], flags: argparse.Namespace) -> dict[str, Any]:
    """Runs the sections in order, and writes what there is after each."""
    began = time.monotonic()
    record: dict[str, Any] = {
        "command": "python benchmarks/on_device.py" + " --quick" * settings["quick"],
        "date": time.strftime("%Y-%m-%d"),
        "missing": _device_bare.missing(),
        "settings": dict(settings),
        "sections": {},
    }
    # Two processes in a row share the device: neither takes all of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    folder = Path(os.environ.get("OUT") or RESULTS)
    path = flags.output
    if path is not None and (path.is_dir() or not path.suffix):
        folder, path = path, None
    left = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for name in flags.sections:
            section = SECTIONS[name]
            rest = flags.minutes * 60 - (time.monotonic() - began)
            seconds = min(section.seconds + left, rest)
            rows, log = Path(scratch, f"{name}.jsonl"), Path(scratch, f"{name}.log")
            flag = f"--settings={json.dumps(settings)}"
            command = command_of(Path(__file__), name, rows, flag)
            stall = section.stall
            came = drive(command, rows, seconds=seconds, stall=stall, log=log)
            left = max(0.0, seconds - came.seconds)
            record["sections"][name] = came._asdict()
            about = f"{len(came.rows)} rows, {len(came.failed)} failed"
            about += f", {len(came.left)} not reached, {came.seconds:.0f} s"
            print(f"{name}: {about}", flush=True)
            for item, reason in came.failed.items():
                print(f"  {item}: {reason}", flush=True)
            for line in came.log.splitlines()[-3:]:
                print(f"  {name} printed: {line}", flush=True)
            path = folder / named_after(record) if path is None else path
            record["seconds"] = time.monotonic() - began
            if platform_of(record) == "cpu" and not settings["quick"]:
                record["stopped"] = "JAX found a CPU alone; --quick is for that"
            elif name == "device" and came.failed.get("start", OUT_OF_TIME) != (
                OUT_OF_TIME
            ):
                record["stopped"] = "JAX found no device"
            write(path, record)
            if "stopped" in record:
                print(record["stopped"], flush=True)
                break
    print(f"written: {path}")
    return record


def platform_of(record: Mapping[str, Any]) -> str | None:
    """The platform that a record tells of; None where it does not."""
    rows = record["sections"].get("device", {}).get("rows", [])
    timed = record["sections"].get("kernels", {}).get("rows", [])
    said = [row["platform"] for row in rows if "platform" in row]
    said += [row["by"] for row in timed if row["by"] in ("gpu", "tpu")]
    return next(iter(said), None)


def named_after(record: Mapping[str, Any]) -> str:
    """The name of the file of a device."""
    rows = record["sections"].get("device", {}).get("rows", [])
    kind = next((row["kind"] for row in rows if "kind" in row), "unknown device")
    quick = "-quick" * record["settings"]["quick"]
    return f"{re.sub('[^a-z0-9]+', '_', kind.lower()).strip('_')}{quick}.json"


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    other = path.with_suffix(".tmp")
    other.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(other, path)


def tables(record: Mapping[str, Any]) -> str:
    """The tables of a record, for people; by hand, for they need no package."""
    texts = []
    for name, columns in COLUMNS.items():
        section = record["sections"].get("step" if name == "update" else name)
        rows = [] if section is None else section["rows"]
        if name in ("step", "update"):
            rows = [row for row in rows if row["what"] == name]
        if name == "correct":  # those alone that are wrong
            rows = [row for row in rows if not row.get("right", True)]
        if rows:
            cells = [[_cell(row.get(c)) for c in columns] for row in rows]
            texts.append(f"{name}\n{_lined([list(columns), *cells])}")
    return "\n\n".join(texts)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _lined(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def propose(record: Mapping[str, Any]) -> str:
    """Which kernels beat XLA on a device, which lose, and which are wrong there."""
    platform = platform_of(record) or "cpu"
    if platform == "cpu":
        return "A CPU has no kernels: nothing is proposed."
    from _kernel_numerics import wrong as misses
    from _kernel_verdicts import CHOICES, GOALS, faster, judge

    sections = record["sections"]
    rows = sections.get("kernels", {}).get("rows", [])
    checked = sections.get("correct", {})
    wrong = {CHOICES[r["op"]] for r in checked.get("rows", []) if not r.get("right", 1)}
    for name in ("correct", "kernels"):
        failed = sections.get(name, {}).get("failed", {})
        # An item that was cut off is as one that was not reached.
        wrong |= {
            CHOICES.get(item.split()[0], item)
            for item, reason in failed.items()
            if reason != OUT_OF_TIME and not item.endswith(kernels.TORCH)
        }
    ran = [r for r in rows if r["by"] == platform and r["op"] in CHOICES]
    ran = [r for r in ran if not r.get("refused")]
    wrong |= {CHOICES[r["op"]] for r in ran if "us" not in r or misses(r)}
    pays = [name for name in faster(rows, platform) if name not in wrong]
    timed = {CHOICES[r["op"]] for r in ran}
    loses = sorted(timed - set(pays) - wrong)
    lines = [f"Goals on {platform}"]
    for goal in (judge(goal, rows, platform) for goal in GOALS):
        why = f": {goal['reason']}" if "reason" in goal else ""
        lines.append(f"  {goal['goal']} {goal['target']}: {goal['verdict']}{why}")
    entry = ", ".join(f'"{name}": frozenset({{"{platform}"}})' for name in pays)
    lines += [
        f"FASTER_THAN_XLA = {{{entry}}}",
        f"lose to XLA on some shape, to be deleted: {', '.join(loses) or 'none'}",
        f"wrong, or did not run: {', '.join(sorted(wrong)) or 'none'}",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small, to try it")
    parser.add_argument("--wheels", action="store_true", help="what to bring")
    parser.add_argument("--propose", type=Path, help="of a stored file, no run")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS)
    )
    parser.add_argument("--output", type=Path, help="a file, or a folder")
    for name in ("work", "rows", "settings"):  # of the process of a section
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    _device_bare.prepare()
    if flags.wheels:
        print(_device_bare.wheels())
        return 0
    if flags.work:
        work(SECTIONS[flags.work], json.loads(flags.settings), Path(flags.rows))
        return 0
    if flags.propose:
        record = json.loads(flags.propose.read_text())
    else:
        for package, purpose in _device_bare.missing().items():
            print(f"missing: {package}, for {purpose} (--wheels says what to bring)")
        record = measure({"quick": flags.quick}, flags)
    print(tables(record))
    print(propose(record))
    if "stopped" in record:
        return 1
    return int(not any(s["rows"] for s in record["sections"].values()))


if __name__ == "__main__":
    sys.exit(main())
