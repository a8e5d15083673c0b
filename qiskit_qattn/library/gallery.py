"""The gallery: every circuit of the catalog, and of pairs, as a picture, as text, as OpenQASM 3 and as QPY."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from qiskit import QuantumCircuit, qpy

from qiskit_qattn.errors import counted, missing_dependency, unknown_name
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import CATALOG, attention_circuit
from qiskit_qattn.library.observables import measurement_bases
from qiskit_qattn.library.pairs import SUMMARIES, pair_circuit, pair_name
from qiskit_qattn.library.quixer import mixing_outline

GALLERY_QUBITS = (2, 4)
# Sizes for the width of a README: there, a row of 16 gates is legible.
_STYLE = {"backgroundcolor": "#FFFFFF", "fontsize": 13, "subfontsize": 10}
_FOLD = 16


def render(circuit: AttentionCircuit, output: str) -> str | bytes:
    """Render a circuit; pictures and text mark encoding, ansatz and measurement, code has no measurement.

    Args:
        circuit: The circuit.
        output: ``txt``, ``svg``, ``png``, ``pdf``, ``latex`` (source), ``qasm`` (OpenQASM 3) or ``qpy``.

    Raises:
        UnknownNameError: For another format.
        MissingDependencyError: For a picture without matplotlib and pylatexenc.
    """
    if output not in _FORMATS:
        raise unknown_name("format", output, _FORMATS)
    return _FORMATS[output](circuit)


def gallery_circuits() -> dict[str, list[AttentionCircuit]]:
    """Return the circuits of the catalog on two and on four qubits, and those that compare QISA's states of so many."""
    found = {name: [attention_circuit(name, n) for n in GALLERY_QUBITS] for name in CATALOG}
    for comparison in SUMMARIES:
        states = (attention_circuit("qisa-v3", n, num_observables=1) for n in GALLERY_QUBITS)
        found[pair_name("qisa-v3", comparison)] = [pair_circuit(each, comparison) for each in states]
    return found


def write_gallery(folder: Path, heads: Mapping[str, Sequence[str]]) -> None:
    """Write :func:`gallery_circuits` and a README.md with the pictures.

    Args:
        folder: Where to write; ``<circuit>/<n>-qubits/`` are made in it.
        heads: The circuits that each kind of head runs; the index names them.
    """
    circuits = gallery_circuits()
    for circuit in itertools.chain.from_iterable(circuits.values()):
        home = folder / _home(circuit)
        home.mkdir(parents=True, exist_ok=True)
        for output in ("svg", "txt", "qasm", "qpy"):
            content = render(circuit, output)
            (home / f"circuit.{output}").write_bytes(content.encode() if isinstance(content, str) else content)
    for name, (outline, _) in _OUTLINES.items():  # of circuits that are too deep to be drawn gate by gate
        (folder / name / "outline.svg").write_bytes(_picture(outline(), "svg"))
    (folder / "README.md").write_text("\n".join(_index(circuits, heads)), encoding="utf-8")


def _home(circuit: AttentionCircuit) -> str:
    return f"{circuit.name}/{circuit.num_qubits}-qubits"


def _index(circuits: Mapping[str, Sequence[AttentionCircuit]], heads: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the lines of the gallery's README.md."""
    without = ", ".join(f"`{head}`" for head, used in heads.items() if not used)
    sizes = " and ".join(str(n) for n in GALLERY_QUBITS)
    lines = [
        "# Circuits",
        "",
        f"Every circuit in the catalog on {sizes} qubits, and those that compare two such states. `make draw`",
        "generates this folder; the tests check that it matches the code.",
        "",
        "| circuit | heads that run it | what it is |",
        "|---|---|---|",
    ]
    users = {name: ", ".join(f"`{head}`" for head, used in heads.items() if name in used) for name in circuits}
    summaries = {name: recipe.summary for name, recipe in CATALOG.items()}
    summaries |= {
        pair_name("qisa-v3", comparison): summary.replace("|", "\\|") for comparison, summary in SUMMARIES.items()
    }
    lines += [f"| [`{name}`](#{name}) | {users[name]} | {summaries[name]} |" for name in circuits]
    lines += [
        "",
        f"The heads {without} are classical and run no circuit.",
        "",
        "In the pictures, `x` are the data-dependent angles and `θ` the trainable weights; of a pair, `q` and `θ` are",
        "those of the query, `k` and `φ` those of the key. Barriers separate encoding, ansatz and measurement; the",
        "measurement is drawn in the circuit's first basis. Qubit 0 is the top wire and the last letter of a Pauli",
        "string. A head's circuit has as many outputs as the head is wide; here there is at most one per qubit.",
    ]
    for name, sizes_of in circuits.items():
        lines += ["", f"## {name}", "", f"Heads: {users[name]}."]
        for circuit in sizes_of:
            few = len(circuit.labels) <= 2 * circuit.num_qubits
            measured = ", ".join(circuit.labels) if few else f"a sum of {len(circuit.labels)} Pauli strings"
            bases = [basis for basis, _ in measurement_bases(circuit.labels)]
            home = _home(circuit)
            lines += [
                "",
                f"**{circuit.num_qubits} qubits**: {counted(len(circuit.input_params), 'data angle')}, "
                f"{counted(len(circuit.weight_params), 'weight')}, "
                f"{counted(circuit.circuit.num_nonlocal_gates(), 'two-qubit gate')}; "
                f"measures {measured} in the {'basis' if len(bases) == 1 else 'bases'} {', '.join(bases)}.",
                "",
                f"![{name} on {circuit.num_qubits} qubits]({home}/circuit.svg)",
                "",
                f"[text]({home}/circuit.txt) · [OpenQASM 3]({home}/circuit.qasm) · [QPY]({home}/circuit.qpy)",
            ]
        if name in _OUTLINES:
            lines += ["", f"{_OUTLINES[name][1]}:", "", f"![{name} in outline]({name}/outline.svg)"]
    return [*lines, ""]


def _picture(circuit: AttentionCircuit | QuantumCircuit, output: str) -> bytes:
    """Draw with matplotlib; the same circuit always gives the same bytes."""
    try:
        import matplotlib
        from matplotlib import pyplot
    except ImportError as error:
        raise missing_dependency("matplotlib", "train") from error
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "qiskit-qattn", "svg.fonttype": "path", "pdf.fonttype": 42}):
        figure = circuit.draw(
            "mpl", style=_STYLE, fold=_FOLD, plot_barriers=True, idle_wires=True, measure_arrows=False
        )
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(output, {})
        figure.savefig(buffer, format=output, bbox_inches="tight", dpi=150, metadata=metadata)
        pyplot.close(figure)
    return buffer.getvalue()


def _qpy(circuit: AttentionCircuit) -> bytes:
    buffer = io.BytesIO()
    qpy.dump(circuit.circuit, buffer)
    return buffer.getvalue()


_FORMATS: dict[str, Callable[[AttentionCircuit], str | bytes]] = {
    "txt": lambda circuit: str(circuit.draw("text", fold=100)) + "\n",
    "svg": lambda circuit: _picture(circuit, "svg"),
    "png": lambda circuit: _picture(circuit, "png"),
    "pdf": lambda circuit: _picture(circuit, "pdf"),
    "latex": lambda circuit: circuit.draw("latex_source"),
    "qasm": lambda circuit: circuit.qasm3(),
    "qpy": _qpy,
}

_OUTLINES: dict[str, tuple[Callable[[], QuantumCircuit], str]] = {
    "quixer": (
        lambda: mixing_outline(attention_circuit("quixer", 2), window=4, degree=2),
        "That is the circuit of one token. In outline, one that mixes four tokens by a polynomial of degree 2",
    ),
}
