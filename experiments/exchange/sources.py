"""From a file, or a folder, to columns of cells."""

from pathlib import Path

from gnomon.experiments.console.errors import UserError
from gnomon.experiments.exchange.export import cells_of_runs
from gnomon.experiments.exchange.formats import READERS, Cells, read_cells
from gnomon.experiments.exchange.from_tensorboard import has_events, read_events
from gnomon.experiments.exchange.from_wandb import plain_rows
from gnomon.experiments.records.runs import load_runs


def cells_of(path: Path) -> Cells:
    """Reads a file, the files of a folder, TensorBoard's events, or a sweep's trials.

    Of several files a column ``file`` tells whose a row is.

    Raises:
      UserError: it holds no table.
      FileNotFoundError: there is nothing at the path.
    """
    if not path.exists():
        raise FileNotFoundError(f"--table={path}: no such file; give a table of runs")
    if not path.is_dir():
        return plain_rows(read_cells(path))
    if (path / "trials").is_dir():
        runs = load_runs(path)
        metric = runs[0].config.get("report", {}).get("metric") or "validation_loss"
        return cells_of_runs(runs, metric)
    if has_events(path):
        return read_events(path)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in READERS)
    if not files:
        raise UserError(
            f"--table={path}: neither tables ({', '.join(READERS)}) nor TensorBoard's"
            " events in the folder"
        )
    return joined({file.stem: plain_rows(read_cells(file)) for file in files})


def joined(tables: dict[str, Cells]) -> Cells:
    """Tables one below the other; what one lacks is empty there.

    >>> joined({"a": {"loss": [1.0]}, "b": {"step": [2]}})
    {'file': ['a', 'b'], 'loss': [1.0, None], 'step': [None, 2]}
    """
    found: Cells = {"file": []}
    found |= {name: [] for table in tables.values() for name in table if name != "file"}
    for stem, table in tables.items():
        rows = len(next(iter(table.values())))
        for name, column in found.items():
            own = [stem] * rows if name == "file" else table.get(name, [None] * rows)
            column += own
    return found
