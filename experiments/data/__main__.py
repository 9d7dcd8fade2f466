"""Stores data sets ahead of time: ``python -m gnomon.experiments.data [name ...]``.

``python -m gnomon.experiments.data tokenize ...`` makes one of files of text.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from gnomon.experiments.console.command import guarded
from gnomon.experiments.console.errors import UserError, explain
from gnomon.experiments.console.shown import printable
from gnomon.experiments.data import load, storage


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help says what there is")


def run(argv: Sequence[str] | None = None) -> None:
    """The command; what a person can cause ends it in one line."""
    guarded(lambda: main(argv))


def main(argv: Sequence[str] | None = None) -> None:
    """Loads each named data set and says what it holds, or tokenizes files.

    Args:
      argv: the arguments; by default those of the process.

    Raises:
      UserError: names the data set that cannot be had, and why.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["tokenize"]:
        from gnomon.experiments.data import tokenize_command

        parser = _Parser(
            prog="python -m gnomon.experiments.data tokenize",
            description="Makes a folder of token shards; the same again goes on.",
        )
        tokenize_command.define(parser)
        tokenize_command.run(parser.parse_args(words[1:]))
        return
    parser = _Parser(
        prog="python -m gnomon.experiments.data",
        description="Stores data sets, so that a run finds them ready; tokenize, as"
        " first word, makes one of files of text (tokenize --help).",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        default=["stdlib_text", "digits"],
        help="as in config.data.name (default: stdlib_text digits)",
    )
    print(f"data sets of this package lie in {storage.data_dir()}")
    for name in parser.parse_args(words).names:
        start = time.perf_counter()
        try:
            data = load({"name": name})
        except Exception as error:
            if (line := explain(error)) is None:
                raise
            raise UserError(f"{name}: {line}") from error
        print(f"{printable(name)}  sha256 {data.fingerprint}")
        for split in ("train", "validation"):
            for key, array in getattr(data, split).items():
                shape = " x ".join(str(size) for size in array.shape)
                size = math.prod(array.shape) * array.dtype.itemsize / 1e6
                about = f"{key:<6}  {array.dtype!s:<7}  {shape}  {size:.1f} MB"
                print(f"  {split:<10}  {about}")
        print(f"  loaded in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    run()
