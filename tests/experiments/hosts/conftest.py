"""Processes of one run on this machine."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

# The scenes, and the disk that dies.
for folder in (Path(__file__).parent, Path(__file__).parents[1] / "crash"):
    sys.path.insert(0, str(folder))


@pytest.fixture
def board():
    from boards import Shared

    return Shared()


@pytest.fixture(scope="module")
def start(compiled):
    """Starts a process of a run, on so many CPU devices."""
    started = []

    def process(words, devices, **given) -> subprocess.Popen:
        here = {"JAX_NUM_CPU_DEVICES": str(devices), "TF_CPP_MIN_LOG_LEVEL": "2"}
        started.append(
            subprocess.Popen(
                [sys.executable, *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parent,
                env=os.environ | compiled | here | given,
            )
        )
        return started[-1]

    yield process
    for one in started:
        one.kill()
        one.communicate()


@pytest.fixture(scope="module")
def free_port():
    def port() -> int:
        with socket.socket() as taken:
            taken.bind(("localhost", 0))
            return taken.getsockname()[1]

    return port
