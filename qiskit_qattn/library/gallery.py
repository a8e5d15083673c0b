"""The gallery: every circuit of the catalog as a picture, as text, as OpenQASM 3 and as QPY."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from qiskit import qpy

from qiskit_qattn.errors import missing_dependency, unknown_name
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import CATALOG, attention_circuit
from qiskit_qattn.library.observables import measurement_bases

GALLERY_QUBITS = 4
_STYLE = {"backgroundcolor": "#FFFFFF", "fontsize": 11, "subfontsize": 8}
_FOLD = 18  # gates a row; a picture of this width is legible at the width of a README


def render(circuit: AttentionCircuit, output: str) -> str | bytes:
    """Render a circuit; pictures and text show encoding, ansatz and measurement apart, code holds no measurement.

    Args:
        circuit: The circuit.
        output: ``txt``, ``svg``, ``png``, ``latex`` (source), ``qasm`` (OpenQASM 3) or ``qpy``.

    Raises:
        UnknownNameError: For another format.
        MissingDependencyError: For a picture without matplotlib and pylatexenc.
    """
    if output not in _FORMATS:
        raise unknown_name("format", output, _FORMATS)
    return _FORMATS[output](circuit)


def write_gallery(folder: Path) -> None:
    """Write every circuit of the catalog, on four qubits, and a README.md with the pictures.

    Args:
        folder: Where to write; one folder a circuit is made in it.
    """
    index = [
        "# Circuits",
        "",
        f"Every attention circuit of the catalog on {GALLERY_QUBITS} qubits, drawn by",
        "`qattn draw --gallery circuits/`.",
        "`x` are the angles that carry data, `θ` the trainable weights; barriers separate encoding, ansatz and",
        "measurement in the circuit's first basis.",
        "",
    ]
    for name, recipe in CATALOG.items():
        circuit = attention_circuit(name, GALLERY_QUBITS)
        home = folder / name
        home.mkdir(parents=True, exist_ok=True)
        for output in ("svg", "txt", "qasm", "qpy"):
            content = render(circuit, output)
            (home / f"circuit.{output}").write_bytes(content.encode() if isinstance(content, str) else content)
        bases = ", ".join(basis for basis, _ in measurement_bases(circuit.labels))
        index += [
            f"## {name}",
            "",
            f"{recipe.summary}. {len(circuit.input_params)} data angles, {len(circuit.weight_params)} weights, "
            f"observables {', '.join(circuit.labels)}, measured in {bases}.",
            "",
            f"![{name}]({name}/circuit.svg)",
            "",
            f"[text]({name}/circuit.txt) · [OpenQASM 3]({name}/circuit.qasm) · [QPY]({name}/circuit.qpy)",
            "",
        ]
    (folder / "README.md").write_text("\n".join(index), encoding="utf-8")


def _picture(circuit: AttentionCircuit, output: str) -> bytes:
    """Draw with matplotlib; the same circuit always gives the same bytes."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", "train") from error
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "qiskit-qattn", "svg.fonttype": "path"}):
        figure: Figure = circuit.draw("mpl", style=_STYLE, fold=_FOLD, plot_barriers=True, idle_wires=True)
        metadata = {"Date": None} if output == "svg" else {}
        figure.savefig(buffer, format=output, bbox_inches="tight", dpi=150, metadata=metadata)
    return buffer.getvalue()


def _qpy(circuit: AttentionCircuit) -> bytes:
    buffer = io.BytesIO()
    qpy.dump(circuit.circuit, buffer)
    return buffer.getvalue()


_FORMATS: dict[str, Callable[[AttentionCircuit], str | bytes]] = {
    "txt": lambda circuit: str(circuit.draw("text", fold=100)) + "\n",
    "svg": lambda circuit: _picture(circuit, "svg"),
    "png": lambda circuit: _picture(circuit, "png"),
    "latex": lambda circuit: circuit.draw("latex_source"),
    "qasm": lambda circuit: circuit.qasm3(),
    "qpy": _qpy,
}
