"""Stores data sets ahead of time: ``python -m gnomon.experiments.data [name ...]``."""

import argparse
import time

from gnomon.experiments.data import load, storage
from gnomon.experiments.resolve import ConfigError


def main() -> None:
    """Loads each named data set and says what it holds."""
    parser = argparse.ArgumentParser(
        prog="python -m gnomon.experiments.data",
        description="Stores data sets, so that a run finds them ready.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        default=["stdlib_text", "digits"],
        help="as in config.data.name (default: stdlib_text digits)",
    )
    print(f"data sets of this package lie in {storage.data_dir()}")
    for name in parser.parse_args().names:
        start = time.perf_counter()
        try:
            data = load({"name": name})
        except (ConfigError, FileNotFoundError) as error:
            parser.exit(1, f"{name}: {error}\n")
        print(f"{name}  sha256 {data.fingerprint}")
        for split in ("train", "validation"):
            for key, array in getattr(data, split).items():
                shape = " x ".join(str(size) for size in array.shape)
                size = f"{array.nbytes / 1e6:.1f} MB"
                print(f"  {split:<10}  {key:<6}  {array.dtype!s:<7}  {shape}  {size}")
        print(f"  loaded in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
