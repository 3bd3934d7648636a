"""Executes the notebook and writes it back with its outputs: `python examples/notebook.py [FILE]`.

Outputs hold no timings and no paths, so that they change only where something has changed. It runs in a folder of its own:
what its cells write goes with that.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "reasonloop.ipynb"


def executed(parameters: str = "") -> nbformat.NotebookNode:
    """The notebook with outputs. `parameters`: lines that are put behind those of its cell of parameters. Raises
    nbclient's CellExecutionError where a cell fails."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = (one for one in notebook.cells if "parameters" in one.metadata.get("tags", ()))
    source = cell.source
    cell.source += f"\n{parameters}"
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}, record_timing=False)
        client.execute()
    cell.source = source
    for one in notebook.cells:
        if one.cell_type == "code":  # without ipywidgets tqdm says so, with the path of its file
            one.outputs = [out for out in one.outputs if "IProgress not found" not in out.get("text", "")]
    notebook.metadata.pop("language_info", None)  # the machine's version of Python
    return notebook


if __name__ == "__main__":
    nbformat.write(executed(), sys.argv[1] if len(sys.argv) > 1 else NOTEBOOK)
