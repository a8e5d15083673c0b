"""Hugging Face: quantum heads and adapters for its models, and the GPT as one. Importing this registers them there."""

from importlib.util import find_spec

from qiskit_qattn.errors import missing_dependency

for _package in ("transformers", "peft"):
    if find_spec(_package) is None:
        raise missing_dependency(_package, "hf")

from qiskit_qattn.hf.adapter_config import QattnAdapterConfig  # noqa: E402
from qiskit_qattn.hf.adapters import add_adapters, load_adapters  # noqa: E402
from qiskit_qattn.hf.attention import QattnAttentionConfig, replace_attention  # noqa: E402
from qiskit_qattn.hf.language_model import QattnConfig, QattnForCausalLM, QattnTokenizer  # noqa: E402

__all__ = [
    "QattnAdapterConfig",
    "QattnAttentionConfig",
    "QattnConfig",
    "QattnForCausalLM",
    "QattnTokenizer",
    "add_adapters",
    "load_adapters",
    "replace_attention",
]
