"""The same circuit in other libraries, one a module; each has ``build(problem)``, as ``problem.py`` says."""

PEERS = {"pennylane": "PennyLane TorchLayer", "tensorcircuit": "tensorcircuit-ng, JAX", "torq": "TorQ"}
