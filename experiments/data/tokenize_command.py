"""The command ``python -m gnomon.experiments.data tokenize``."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from gnomon.experiments.console.errors import UserError
from gnomon.experiments.data.tokenization import Options, tokenize


def define(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    default = Options("", "", Path())._asdict()

    def option(name: str, meaning: str, kind: type = str) -> None:
        note = f" (default: {default[name]})"
        parser.add_argument(
            f"--{name}", type=kind, default=default[name], help=meaning + note
        )

    parser.add_argument(
        "--input",
        required=True,
        metavar="GLOB",
        help="files of text, .jsonl or .parquet; quoted, '**' is any folder",
    )
    parser.add_argument(
        "--tokenizer",
        required=True,
        metavar="byte|bpe:SIZE|FILE",
        help="bytes; a byte-level BPE of so many tokens, trained on the input; or a"
        " tokenizer.json",
    )
    parser.add_argument("--output", required=True, metavar="DIR", type=Path)
    option("field", "where JSON lines and Parquet hold the text")
    option("end_of_text", "the token of FILE that ends a document")
    option("shard_tokens", "tokens that fill a shard", int)
    option("train_bytes", "text to train BPE on, spread evenly over the input", int)
    parser.add_argument(
        "--errors",
        choices=["strict", "replace"],
        default="strict",
        help="what is not UTF-8 ends the command, or becomes U+FFFD (default: strict)",
    )


def run(values: argparse.Namespace) -> None:
    """Tokenizes, and says what came of it and how a config names it."""
    options = Options(**vars(values))
    for field in ("shard_tokens", "train_bytes"):
        if getattr(options, field) < 1:
            raise UserError(f"--{field}: must be at least 1")
    options = options._replace(output=options.output.expanduser())
    bar = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            # In a log, a line every ten seconds.
            often = 0.2 if sys.stderr.isatty() else 10.0
            bar = tqdm(total=total, unit="B", unit_scale=True, mininterval=often)
        bar.update(done - bar.n)

    try:
        meta = tokenize(options, progress)
    finally:
        if bar is not None:
            bar.close()
    print(
        f"{options.output}: {meta['tokens']:,} tokens of {meta['vocabulary']:,} in"
        f" {len(meta['shards'])} shards, {meta['documents']:,} documents,"
        f" {meta['bytes_per_token']:.3f} bytes a token"
    )
    print(
        f"config.data = dict(name='tokens', path={str(options.output)!r}, length=1024)"
    )
    print(f"config.model.vocab = {meta['vocabulary']}, or more")
