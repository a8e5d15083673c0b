"""What an installation of the package has to do, run by its Python in an empty folder: ``python smoke.py``."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

VERSE = "the king and queen shall speak to thee good sir what is this night love death come hither\n"


_QATTN = "from importlib.metadata import entry_points as e; e(group='console_scripts', name='qattn')['qattn'].load()()"


def qattn(*arguments: str) -> str:
    """Run the command that was installed, and return what it printed."""
    command = [sys.executable, "-c", _QATTN, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def main() -> None:
    """Compute gradients of a circuit, train a small GPT, generate from it and draw a circuit."""
    import torch

    import qiskit_qattn as qa

    assert qa.__version__ == version("qiskit-qattn"), (qa.__version__, version("qiskit-qattn"))
    package = Path(qa.__file__).parent
    for name in ("py.typed", "backends/prices.toml", "serving/page/index.html"):
        assert (package / name).is_file(), f"{package} lacks {name}"

    layer = qa.TorchConnector(qa.attention_circuit("angle", num_qubits=2).qnn())
    layer(torch.randn(64, 2)).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.isfinite().all()

    Path("verse.txt").write_text(20 * VERSE, encoding="utf-8")
    qattn("train", "--preset", "smoke", "--data", "verse.txt", "--max-steps", "4", "--out", "run")
    assert Path("run/report.md").is_file() and Path("run/loss.png").is_file()
    text = qattn("generate", "run", "--prompt", "the king", "--tokens", "8", "--backend", "statevector?shots=64&seed=1")
    assert "the king" in text, text
    qattn("draw", "qisa", "--num-qubits", "2", "--format", "svg", "-o", "qisa.svg")
    assert Path("qisa.svg").is_file()
    print(f"qiskit-qattn {qa.__version__} in {package} works, on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
