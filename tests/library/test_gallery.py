"""The committed gallery is what the code draws."""

from pathlib import Path

import numpy as np
import pytest
from qiskit import qpy
from qiskit.quantum_info import Statevector

from qiskit_qattn.errors import UnknownNameError
from qiskit_qattn.library.catalog import CATALOG, attention_circuit
from qiskit_qattn.library.gallery import GALLERY_QUBITS, render, write_gallery

GALLERY = Path(__file__).parents[2] / "circuits"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    write_gallery(folder)
    return folder


def test_the_gallery_holds_one_folder_a_circuit(fresh):
    assert {path.name for path in GALLERY.iterdir() if path.is_dir()} == set(CATALOG)
    assert (GALLERY / "README.md").read_text("utf-8") == (fresh / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", CATALOG)
def test_the_committed_files_are_current(name, fresh, rng):
    for file in ("circuit.qasm", "circuit.txt"):
        assert (GALLERY / name / file).read_text("utf-8") == (fresh / name / file).read_text("utf-8")
    with (GALLERY / name / "circuit.qpy").open("rb") as file:
        committed = qpy.load(file)[0]
    current = attention_circuit(name, GALLERY_QUBITS).circuit
    values = {p.name: v for p, v in zip(current.parameters, rng.normal(size=current.num_parameters), strict=True)}
    states = [
        Statevector(circuit.assign_parameters({p: values[p.name] for p in circuit.parameters}))
        for circuit in (committed, current)
    ]
    np.testing.assert_allclose(states[0].data, states[1].data, atol=1e-12)
    assert (GALLERY / name / "circuit.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize("output", ["svg", "png", "txt", "qasm", "qpy", "latex"])
def test_every_format_renders_the_same_each_time(output):
    circuit = attention_circuit("qisa", 2)
    first = render(circuit, output)
    assert len(first) > 100
    if output != "qpy":  # QPY holds the parameters' identities
        assert first == render(attention_circuit("qisa", 2), output)


def test_an_unknown_format_lists_the_known():
    with pytest.raises(UnknownNameError, match=r"gif.*Known: latex, png, qasm, qpy, svg, txt"):
        render(attention_circuit("qisa", 2), "gif")
