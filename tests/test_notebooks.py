"""The notebooks as they are committed: run from top to bottom, with pictures, and with nothing of the machine.

``make test`` also executes them, through nbmake.
"""

import re
import runpy
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ABSOLUTE_PATH = re.compile(r"""(?:^|[\s"'(=])(?:/[\w.-]+){2}""", re.MULTILINE)
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(output):
    """Return the texts of an output, without its pictures."""
    if output.output_type == "stream":
        return [output.text]
    return [value for kind, value in output.data.items() if kind.startswith("text/")]


def test_the_index_names_all_of_them():
    index = (FOLDER / "README.md").read_text("utf-8")
    assert re.findall(r"\((\S+\.ipynb)\)", index) == [path.name for path in NOTEBOOKS]


def test_it_ran_from_top_to_bottom(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_it_opens_with_what_it_shows_and_ends_with_what_to_try(notebook):
    first, last = notebook.cells[0], notebook.cells[-1]
    assert re.match(r"# \d+ · .+\n\n\w", first.source)
    assert re.search(r"^## Try\n\n(?:- .+\n(?:  .+\n)*){3,}", last.source, re.MULTILINE)


def test_the_exercises_have_solutions_that_check_themselves():
    notebook = nbformat.read(FOLDER / "10-exercises.ipynb", as_version=4)
    exercises = [cell for cell in notebook.cells if re.match(r"## \d", cell.source)]
    solutions = [cell.source for cell in code_cells(notebook) if cell.source.startswith("# Solution")]
    assert len(solutions) == len(exercises) >= 8 and all("assert " in source for source in solutions)


def test_it_holds_pictures_and_no_warnings_or_errors(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"] == []


def test_it_holds_nothing_of_the_machine(notebook):
    refresh = runpy.run_path(str(FOLDER / "refresh.py"))
    assert notebook.metadata == refresh["METADATA"]
    assert all(cell.metadata == refresh["cell_metadata"](cell) for cell in notebook.cells)
    for cell in code_cells(notebook):
        for text in (text for output in cell.outputs for text in texts(output)):
            assert not ABSOLUTE_PATH.search(text) and not ADDRESS.search(text), text
