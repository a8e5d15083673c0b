"""The committed gallery is what the code draws."""

import re
from pathlib import Path

import numpy as np
import pytest
from qiskit import qpy
from qiskit.quantum_info import Statevector

from qiskit_qattn.errors import UnknownNameError
from qiskit_qattn.library.catalog import CATALOG, attention_circuit
from qiskit_qattn.library.gallery import GALLERY_QUBITS, render, write_gallery
from qiskit_qattn.nn.kinds import HEAD_KINDS

GALLERY = Path(__file__).parents[2] / "circuits"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    write_gallery(folder, {kind.name: kind.circuits for kind in HEAD_KINDS.values()})
    return folder


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def drawn(svg):
    """Return the size of a picture and the texts in it, which are comments beside their outlines."""
    text = svg.read_text("utf-8")
    return re.search(r'viewBox="([^"]+)"', text)[1], re.findall(r"<!-- (.+?) -->", text)


def test_the_gallery_holds_what_is_drawn_and_nothing_else(fresh):
    assert files(GALLERY) == files(fresh)
    assert (GALLERY / "README.md").read_text("utf-8") == (fresh / "README.md").read_text("utf-8")


def test_the_index_names_every_kind_of_head_and_every_file(fresh):
    index = (fresh / "README.md").read_text("utf-8")
    assert all(f"`{name}`" in index for name in HEAD_KINDS)
    assert set(re.findall(r"\]\(([^#)]+)\)", index)) == files(fresh) - {"README.md"}


@pytest.mark.parametrize("num_qubits", GALLERY_QUBITS)
@pytest.mark.parametrize("name", CATALOG)
def test_the_committed_files_are_current(name, num_qubits, fresh, rng):
    home = Path(name, f"{num_qubits}-qubits")
    for file in ("circuit.qasm", "circuit.txt"):
        assert (GALLERY / home / file).read_text("utf-8") == (fresh / home / file).read_text("utf-8")
    with (GALLERY / home / "circuit.qpy").open("rb") as file:
        committed = qpy.load(file)[0]
    current = attention_circuit(name, num_qubits).circuit
    values = {p.name: v for p, v in zip(current.parameters, rng.normal(size=current.num_parameters), strict=True)}
    states = [
        Statevector(circuit.assign_parameters({p: values[p.name] for p in circuit.parameters}))
        for circuit in (committed, current)
    ]
    np.testing.assert_allclose(states[0].data, states[1].data, atol=1e-12)
    assert drawn(GALLERY / home / "circuit.svg") == drawn(fresh / home / "circuit.svg")
    texts = " ".join(drawn(fresh / home / "circuit.svg")[1])
    assert all(parameter.name in texts for parameter in current.parameters)


@pytest.mark.parametrize("output", ["svg", "png", "pdf", "txt", "qasm", "qpy", "latex"])
def test_every_format_renders_the_same_each_time(output):
    circuit = attention_circuit("qisa", 2)
    first = render(circuit, output)
    assert len(first) > 100
    if output != "qpy":  # QPY holds the parameters' identities
        assert first == render(attention_circuit("qisa", 2), output)


def test_an_unknown_format_lists_the_known():
    with pytest.raises(UnknownNameError, match=r"gif.*Known: latex, pdf, png, qasm, qpy, svg, txt"):
        render(attention_circuit("qisa", 2), "gif")
