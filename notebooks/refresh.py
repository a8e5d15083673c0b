"""Run notebooks from top to bottom and keep their outputs.

python notebooks/refresh.py [NAME.ipynb …]     without names: all of them
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
FOLDED = {"collapsed": True, "jupyter": {"outputs_hidden": True, "source_hidden": True}}


def cell_metadata(cell: nbformat.NotebookNode) -> dict:
    """Return what is stored with a cell: nothing, but for solutions of exercises, which are folded."""
    return FOLDED if cell.source.startswith("# Solution") else {}


def refresh(path: Path) -> None:
    """Execute the notebook at ``path`` in a new kernel, and store it without what differs from machine to machine."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=120, record_timing=False, coalesce_streams=True, resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(cell_metadata(cell))
    nbformat.write(notebook, path)


if __name__ == "__main__":
    os.environ.pop("MPLBACKEND", None)
    for path in [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        begin = time.perf_counter()
        refresh(path)
        print(f"{path.name}: {time.perf_counter() - begin:.0f} s")
