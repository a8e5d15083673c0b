"""The package as a whole."""

import subprocess
import sys

import pytest

import qiskit_qattn as qa


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_loads_neither_torch_nor_a_providers_sdk():
    heavy = {
        "torch",
        "qiskit",
        "qiskit_aer",
        "qiskit_ibm_runtime",
        "braket",
        "matplotlib",
        "accelerate",
        "transformers",
        *("fastapi", "uvicorn", "prometheus_client", "limits"),
    }
    assert run(f"import sys, qiskit_qattn; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_running_statevector_loads_neither_a_providers_sdk_nor_the_compiler():
    code = (
        "import sys, torch, qiskit_qattn as qa\n"
        "head = qa.QuantumHead(qa.attention_circuit('qisa', 2))\n"
        "head(torch.randn(3, 4)).sum().backward()\n"
        "qa.GPT(qa.GPTConfig(n_layer=1)).generate(torch.zeros(1, 1, dtype=torch.long), 2)\n"
        "others = {'qiskit_aer', 'qiskit_ibm_runtime', 'braket', 'matplotlib', 'transformers'}\n"
        "others |= {'torch._dynamo', 'triton'}\n"
        "print(sorted(others & set(sys.modules)))"
    )
    assert run(code) == "[]"


def test_every_public_name_exists():
    assert {name for name in qa.__all__ if getattr(qa, name) is None} == set()
    assert set(qa.__all__) <= set(dir(qa))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        qa.nothing  # noqa: B018


def test_public_names_have_docstrings():
    assert [name for name in qa.__all__ if not (getattr(qa, name).__doc__ or "").strip()] == []
