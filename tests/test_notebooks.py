"""Every notebook runs from top to bottom, and is what its source says."""

import pathlib

import jupytext
import nbclient
import nbformat
import pytest
from jupyter_client import KernelManager

SOURCES = sorted((pathlib.Path(__file__).parent.parent / "notebooks").glob("*.py"))
NOTEBOOKS = [source.with_suffix(".ipynb") for source in SOURCES]


@pytest.fixture(scope="module")
def kernel():
    """One kernel for all: imports take as long as a notebook itself."""
    manager = KernelManager()
    yield manager
    manager.shutdown_kernel(now=True)


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_every_notebook_has_a_source():
    assert SOURCES
    assert sorted(SOURCES[0].parent.glob("*.ipynb")) == NOTEBOOKS


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_its_source_without_outputs(source):
    """`make notebooks` brings a notebook in step; outputs are to be cleared."""
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    assert cells(notebook) == cells(jupytext.read(source))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_saw(path, kernel, tmp_path):
    """It warns of nothing, draws a picture, and its last words are a sentence."""
    notebook = nbformat.read(path, as_version=4)
    # What the notebook before it named is gone.
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    folder = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, km=kernel, timeout=600, resources=folder)
    try:
        client.execute()
    finally:
        client.kc.stop_channels()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.text for output in outputs if output.output_type == "stream"]
    assert not [text for text in texts if "Warning" in text]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert notebook.cells[-1].outputs[-1].text.endswith(".\n")
