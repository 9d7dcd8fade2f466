"""What the suite asks of a checkout and of its own runs."""

import os
import pathlib
import shutil
import subprocess
import sys

from hypothesis import settings

SOURCE = pathlib.Path(__file__).parent.parent / "src" / "gnomon"


def test_a_checkout_without_symbolic_links_says_how_to_get_them(tmp_path):
    """Git writes the target of a link into a text file where it may not make links."""
    package = tmp_path / "gnomon"
    package.mkdir()
    for entry in SOURCE.iterdir():
        if entry.is_symlink():
            (package / entry.name).write_text(os.readlink(entry))
        elif entry.is_file():
            shutil.copy(entry, package)
    done = subprocess.run(
        [sys.executable, "-c", "import gnomon.optimizers"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: src/gnomon holds files in place of symbolic")
    assert "optimizers" in last
    assert "git config core.symlinks true" in last


def test_examples_are_the_same_every_time_unless_others_are_asked_for():
    random = os.environ.get("HYPOTHESIS_PROFILE") == "random"
    assert settings().derandomize is not random
