"""Noise by name on Braket's density-matrix simulator, with the meaning it has in :mod:`.noise`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qiskit_qattn.backends.noise import NOISE_OPTIONS, ONE_QUBIT_GATES, TWO_QUBIT_GATES, number
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, unknown_name

KINDS = ("depolarizing", "amplitude_damping", "phase_damping")
LOCAL_NOISE_OPTIONS = {"noise": f"local_dm: {', '.join(KINDS)}"} | {
    key: NOISE_OPTIONS[key] for key in ("p1", "p2", "gamma")
}
GATES = [*ONE_QUBIT_GATES, *TWO_QUBIT_GATES]


def local_noise(spec: BackendSpec) -> Callable[[Any], Any] | None:
    r"""Return what adds noise after each gate of a Braket circuit, or None where none is asked for.

    A depolarizing probability p is that of :math:`\rho \to (1 - p) \rho + p\, 1 / 2^n`; Braket's counts Pauli errors
    other than the identity, :math:`(1 - 4^{-n}) p`.

    Raises:
        UnknownNameError: For another noise.
        ConfigError: For a probability that is missing, malformed or out of range, or that no noise uses.
    """
    name = spec.options.get("noise")
    if name is not None and name not in KINDS:
        raise unknown_name("noise of Braket's local_dm", name, KINDS)
    used = {None: (), "depolarizing": ("p1", "p2")}.get(name, ("gamma",))
    for key in ("p1", "p2", "gamma"):
        if key in spec.options and key not in used:
            raise ConfigError(f"Backend option {key} is not used with noise={name or 'none'}: {NOISE_OPTIONS[key]}.")
    if name is None:
        return None
    from braket.circuits import Noise

    if name == "depolarizing":
        one = Noise.Depolarizing(0.75 * number(spec, "p1", 0, 1))
        two = Noise.TwoQubitDepolarizing(15 / 16 * number(spec, "p2", 0, 1))
    else:
        kind = Noise.AmplitudeDamping if name == "amplitude_damping" else Noise.PhaseDamping
        one = two = kind(number(spec, "gamma", 0, 1))  # on each qubit of a gate
    return lambda circuit: _noisy(circuit, one, two)


def _noisy(circuit: Any, one: Any, two: Any) -> Any:
    """Return a copy of a circuit with noise after its gates, by their numbers of qubits."""
    from braket.circuits import Circuit, Gate, Instruction

    noisy = Circuit()
    for instruction in circuit.instructions:
        noisy.add_instruction(instruction)
        if isinstance(instruction.operator, Gate) and len(instruction.target):
            noise = one if len(instruction.target) == 1 else two
            targets = [list(instruction.target)] if noise.qubit_count > 1 else [[qubit] for qubit in instruction.target]
            for target in targets:
                noisy.add_instruction(Instruction(noise, target))
    return noisy
