"""Hugging Face models: quantum adapters for pretrained ones. Importing this enters them in PEFT's list of methods."""

from importlib.util import find_spec

from qiskit_qattn.errors import missing_dependency

for _package in ("transformers", "peft"):
    if find_spec(_package) is None:
        raise missing_dependency(_package, "hf")

from qiskit_qattn.hf.adapters import add_adapters, load_adapters  # noqa: E402
from qiskit_qattn.hf.peft_method import QattnAdapterConfig  # noqa: E402

__all__ = ["QattnAdapterConfig", "add_adapters", "load_adapters"]
