"""How kernels cut arrays: sizes that a chip likes, and that a call may change."""

import dataclasses
from typing import Any, ClassVar, Literal


@dataclasses.dataclass(frozen=True)
class Tpu:
    """The kernels for TPUs, and how much they take at a time.

    Example:
      >>> from gnomon.kernels import Tpu, adam
      >>> adam.explain(implementation=Tpu(block=2**14)).implementation
      'tpu'
    """

    # Numbers in a block. The backward pass of a norm holds three such blocks twice, for
    # the pipeline, and a few more in float32, in the 16 MiB that Mosaic gives a kernel
    # unless told otherwise.
    block: int = 2**17
    # VMEM that a kernel may ask for; the smallest current chip has 64 MiB.
    vmem: int = 48 * 2**20
    # Rows of coded moments, whose scales fill one register, and blocks of each in one
    # grid step, the rows of the smallest tile of scales.
    coded_rows: int = 128
    coded_blocks: int = 8

    kernel: ClassVar[Literal["tpu"]] = "tpu"


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The kernels for GPUs, and how much they take at a time."""

    # Enough blocks that several wait for memory on each of an H100's 132
    # multiprocessors.
    blocks: int = 132 * 8
    fewest: int = 16  # rows of a strip that one block adds up

    kernel: ClassVar[Literal["gpu"]] = "gpu"


def sized(implementation: Any, kernel: str) -> Any:
    """A kernel with the sizes that were asked for, or else its own; None of XLA."""
    if isinstance(implementation, Tpu | Gpu):
        return implementation
    return {"tpu": Tpu(), "gpu": Gpu(), "xla": None}[kernel]
