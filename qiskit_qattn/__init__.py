"""Quantum attention heads for PyTorch, built from Qiskit circuits.

Names are imported when first used, so that ``import qiskit_qattn`` loads neither torch nor any provider's SDK.
"""

import sys
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "AttentionCircuit": "library.attention_circuit",
    "attention_circuit": "library.catalog",
    "list_circuits": "library.catalog",
    "amplitude_angles": "simulation.amplitude",
    "StatevectorProgram": "simulation.statevector",
    "TorchEstimator": "simulation.estimator",
    "Backend": "backends.registry",
    "get_backend": "backends.registry",
    "list_backends": "backends.registry",
    "load_noise": "backends.noise_file",
    "save_noise": "backends.noise_file",
    "session": "backends.place",
    "TorchConnector": "nn.connector",
    "compile_qnn": "nn.compiled",
    "fast": "nn.fast",
    "sampler": "nn.chain_sampler",
    "to_backend": "nn.placement",
    "audit": "nn.placement",
    "QuantumHead": "nn.heads",
    "HeadKind": "nn.head_kind",
    "Pairing": "nn.pairs",
    "register_head": "nn.kinds",
    "list_heads": "nn.kinds",
    "replace_attention": "nn.replace",
    "inference": "nn.inference",
    "KeyValueCache": "nn.attention",
    "set_sampling_step": "nn.sampling",
    "QuantumMultiheadAttention": "nn.multihead",
    "GPTConfig": "nn.config",
    "GPT": "nn.gpt",
    "Task": "training.task",
    "QuantumNaturalGradient": "training.natural_gradient",
    "leakage": "evaluation.leakage",
    "attention_maps": "evaluation.attention_maps",
    "sampling_errors": "evaluation.sampling_errors",
    "estimate": "evaluation.device_cost",
    "BackendError": "errors",
    "BudgetError": "errors",
    "CheckpointError": "errors",
    "CircuitError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "DivergenceError": "errors",
    "EncodingError": "errors",
    "GenerationError": "errors",
    "JobError": "errors",
    "MissingDependencyError": "errors",
    "QattnError": "errors",
    "QueueFull": "errors",
    "RunFolderError": "errors",
    "StoppedError": "errors",
    "TokenError": "errors",
    "TransientBackendError": "errors",
    "UnknownNameError": "errors",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
