"""From a file, or a folder, to columns of cells."""

from pathlib import Path

from gnomon.experiments.console.errors import UserError
from gnomon.experiments.exchange.formats import READERS, Cells, read_cells


def cells_of(path: Path) -> Cells:
    """Reads a file, or the files of a folder, a column ``file`` telling them apart.

    Raises:
      UserError: it holds no table.
      FileNotFoundError: there is nothing at the path.
    """
    if not path.exists():
        raise FileNotFoundError(f"--table={path}: no such file; give a table of runs")
    if not path.is_dir():
        return read_cells(path)
    if (path / "trials").is_dir():
        raise UserError(f"--table={path}: the folder of a sweep; give --workdir={path}")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in READERS)
    if not files:
        raise UserError(
            f"--table={path}: no table in the folder; a table ends in"
            f" {', '.join(READERS)}"
        )
    return joined({file.stem: read_cells(file) for file in files})


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
