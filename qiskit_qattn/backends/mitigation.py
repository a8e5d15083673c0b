r"""Error mitigation by a backend string: which methods, what they cost in circuits, and extrapolation to zero noise.

- ``trex`` (twirled readout error extinction) flips measured bits at random, so that readout error only shrinks each
  Pauli expectation, by a factor :math:`f_S` of the qubits S that it is about. A calibration circuit measures
  :math:`f_S`, and expectations are divided by it.
- ``zne`` (zero-noise extrapolation) runs each circuit with its two-qubit gates folded, :math:`U \to U (U^\dagger U)^k`,
  at the noise factors :math:`\lambda = 2 k + 1`, and extrapolates to :math:`\lambda = 0`.
- ``pec`` (probabilistic error cancellation) inverts a noise model that the device has learned.
- ``debias`` is IonQ's own: a circuit's samples are shared out among several ways to put it on the device.

Sources: E. van den Berg, Z. Minev, K. Temme, PRA 105, 032620 (2022), arXiv 2012.09738; K. Temme, S. Bravyi,
J. Gambetta, PRL 119, 180509 (2017), arXiv 1612.02058; E. van den Berg et al., Nature Physics 19, 1116 (2023),
arXiv 2201.09866.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
from qiskit import QuantumCircuit
from qiskit.transpiler import PassManager

from qiskit_qattn.backends.jobs.device import Values
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, missing_dependency, unknown_name

Method = Literal["trex", "zne", "pec", "debias"]
Fit = Literal["linear", "exponential", "richardson"]
METHODS: tuple[Method, ...] = get_args(Method)
FITS: tuple[Fit, ...] = get_args(Fit)
_ALONE = {"zne", "pec", "debias"}  # which exclude each other
_WHERE: dict[Method, str] = {
    "trex": "trex is for aer and density_matrix with noise, and for ibm:<device>",
    "zne": "on Amazon Braket zne is for local_dm with noise, and for QPUs that take barriers",
    "pec": "pec is for devices of an account with IBM Quantum, ibm:<device>",
    "debias": "debias is for IonQ's devices on Amazon Braket",
}
_FACTORS = (1, 3, 5)
_FOLDED = {"cx", "cy", "cz", "ecr", "swap"}  # by qiskit-mitigation
_LEAST_DETERMINANT = 1e-9  # of a qubit's readout: 1 − p(1|0) − p(0|1)
_LARGEST = 25  # noise factor
_OVERHEAD = 10
_MOST = 8  # noise factors, of which Qiskit Runtime fits a polynomial
_SHARE = 64  # the fewest shots of a random twirl
_TWIRLS = 32
MITIGATION_OPTIONS = {
    "mitigation": "trex: readout errors; zne: two-qubit gates' errors, extrapolated to zero noise; trex,zne: both",
    "zne_factors": f"zne: odd noise factors, {','.join(map(str, _FACTORS))} by default",
    "zne_fit": "zne: linear, the default; exponential, else linear where that fails; richardson, through all points",
}
PEC_OPTION = {"pec_overhead": f"pec: how many times the samples it may take, {_OVERHEAD} by default"}
TWIRLING_OPTION = {"twirling": "on or off: twirl two-qubit gates, which averages coherent errors; off by default"}


@dataclass(frozen=True, kw_only=True)
class Mitigation:
    """How errors are mitigated.

    Attributes:
        methods: Which methods, in alphabetical order; ``pec`` and ``zne`` exclude each other.
        factors: Noise factors of ``zne``: odd, ascending.
        fit: What ``zne`` extrapolates by.
        twirling: Whether two-qubit gates are twirled.
        overhead: How many times the samples ``pec`` may take; beyond it, noise is left in.
    """

    methods: tuple[Method, ...]
    factors: tuple[int, ...] = _FACTORS
    fit: Fit = "linear"
    twirling: bool = False
    overhead: int = _OVERHEAD

    def __str__(self) -> str:
        """Return what is done, in a phrase."""
        how = {
            "debias": "debias",
            "pec": f"pec (with at most {self.overhead} times the samples)",
            "trex": "trex",
            "zne": f"zne ({self.fit}, at noise factors {', '.join(map(str, self.factors))})",
        }
        return " and ".join(how[name] for name in self.methods) + (", gates twirled" if self.twirling else "")

    @property
    def description(self) -> str:
        """The methods and what they cost in circuits, in a phrase."""
        parts = [f"{len(self.runs)} circuits in place of each"] if len(self.runs) > 1 else []
        parts += ["a calibration circuit in each job"] if self.calibrations else []
        return f"{self}" + (f": {' and '.join(parts)}" if parts else "")

    @property
    def runs(self) -> tuple[int, ...]:
        """The noise factors at which each circuit is run."""
        return self.factors if "zne" in self.methods else (1,)

    @property
    def calibrations(self) -> int:
        """Circuits of a job that calibrate the readout."""
        return int("trex" in self.methods)

    def circuits(self, count: int) -> int:
        """Return how many circuits a job runs for ``count`` without mitigation."""
        return count * len(self.runs) + self.calibrations

    def shots(self, count: int) -> int:
        """Return the samples that Qiskit Runtime takes of a circuit: equal shares of at least 64 for each twirl."""
        return twirled_shots(count) if self.twirling or self.calibrations else count

    @property
    def weights(self) -> np.ndarray:
        r"""The weights :math:`w_\lambda` with :math:`E(0) = \sum_\lambda w_\lambda E(\lambda)`, of least squares.

        Raises:
            ConfigError: For an exponential, which is no fixed combination.
        """
        if self.fit == "exponential":
            raise ConfigError("An exponential is no fixed combination of values; take zne_fit=linear or richardson.")
        degree = 1 if self.fit == "linear" else len(self.runs) - 1
        return cast(np.ndarray, np.linalg.pinv(np.vander(self.runs, degree + 1, increasing=True))[0])

    def at_zero(self, values: Sequence[Values]) -> Values:
        """Return the values at zero noise from those at each of the noise factors.

        Raises:
            ConfigError: For an exponential.
        """
        evs, variances = np.stack([item.evs for item in values]), np.stack([item.stds for item in values]) ** 2
        stds = np.sqrt(np.tensordot(self.weights**2, variances, 1))
        return Values(np.tensordot(self.weights, evs, 1), stds, values[0].shots, mitigated=True)

    def resilience(self) -> dict[str, Any]:
        """Return the options of Qiskit Runtime's Estimators, the one of 0.50 and later and the older one."""
        options: dict[str, Any] = {f"{name}_mitigation": name in self.methods for name in ("zne", "pec")}
        options["measure_mitigation"] = "trex" in self.methods
        if "zne" in self.methods:
            degree = f"polynomial_degree_{len(self.factors) - 1}"
            fit = {"linear": ["linear"], "exponential": ["exponential", "linear"], "richardson": [degree]}[self.fit]
            options["zne"] = {"noise_factors": list(self.factors), "extrapolator": fit}
        if "pec" in self.methods:
            options["pec"] = {"max_overhead": self.overhead}
        return {
            "resilience_level": 0,
            "resilience": options,
            "twirling": {"enable_gates": self.twirling, "enable_measure": "trex" in self.methods},
        }


def mitigation_option(
    spec: BackendSpec,
    possible: Sequence[Method] = ("trex", "zne"),
    *,
    fits: Sequence[Fit] = FITS,
    twirls: bool = False,
) -> Mitigation | None:
    """Return how a backend string asks to mitigate errors, or None if it does not.

    Args:
        spec: The parsed string.
        possible: The methods of the backend.
        fits: The extrapolations of the backend; the first is the default.
        twirls: Whether the backend can twirl gates.

    Raises:
        UnknownNameError: For an unknown method or fit.
        ConfigError: For a method or fit that the backend does not have, methods that exclude each other, or noise
            factors that cannot be folded or are too few.
    """
    text = spec.options.get("mitigation")
    if text is None:
        _refuse(spec, ())
        return None
    names = text.split(",")
    for name in names:
        if name not in METHODS:
            raise unknown_name("mitigation", name, METHODS)
        if name not in possible:
            raise ConfigError(
                f"mitigation={name} is not possible on {_target(spec)}: it can do {' and '.join(possible) or 'none'}; "
                f"{_WHERE[name]}."
            )
    if len(set(names)) < len(names) or len(_ALONE & set(names)) > 1:
        raise ConfigError(f"mitigation={text}: give each method once, and only one of {', '.join(sorted(_ALONE))}.")
    factors, fit = _factors(spec), cast("Fit", spec.options.get("zne_fit", fits[0]))
    _refuse(spec, names)
    if fit not in FITS:
        raise unknown_name("zne_fit", fit, FITS)
    if fit not in fits:
        raise ConfigError(f"zne_fit={fit} is not possible on {_target(spec)}: it can do {' and '.join(fits)}.")
    methods = cast("list[Method]", sorted(names))
    overhead = spec.integer("pec_overhead", minimum=1, maximum=1000) or _OVERHEAD
    twirling = twirls and _twirling(spec, methods)
    return Mitigation(methods=tuple(methods), factors=factors, fit=fit, twirling=twirling, overhead=overhead)


def noisy_mitigation(
    spec: BackendSpec, model: Any, *, fits: Sequence[Fit] = FITS, twirls: bool = False
) -> Mitigation | None:
    """Return :func:`mitigation_option` of a simulator, where there must be noise to mitigate.

    Args:
        spec: The parsed string.
        model: The Aer ``NoiseModel`` of its noise, or None.
        fits: As for :func:`mitigation_option`.
        twirls: As for :func:`mitigation_option`.

    Raises:
        ConfigError: As :func:`mitigation_option` does, and for errors that the noise does not have.
        UnknownNameError: As :func:`mitigation_option` does.
    """
    mitigation = mitigation_option(spec, fits=fits, twirls=twirls)
    if mitigation is not None and "twirling" not in spec.options:  # noise models have nothing coherent to average
        mitigation = replace(mitigation, twirling=False)
    if mitigation is None:
        if twirls and "twirling" in spec.options:
            raise ConfigError(f"Backend option twirling is for mitigation, and {str(spec)!r} has none.")
        return None
    if model is None:
        raise ConfigError(f"{str(spec)!r} has no noise to mitigate: give noise=…, or leave mitigation out.")
    if "trex" in mitigation.methods:
        errors = [*model._local_readout_errors.values(), *filter(None, [model._default_readout_error])]
        if not errors:
            raise ConfigError(f"{str(spec)!r} has no readout error, which mitigation=trex is for.")
        if any(abs(np.linalg.det(error.probabilities)) < _LEAST_DETERMINANT for error in errors):
            raise ConfigError(f"{str(spec)!r} reads bits at random, which mitigation=trex cannot undo.")
    if "zne" in mitigation.methods and not {*model._local_quantum_errors, *model._default_quantum_errors} & _FOLDED:
        raise ConfigError(
            f"{str(spec)!r} has no errors of two-qubit gates that mitigation=zne folds: {', '.join(sorted(_FOLDED))}."
        )
    return mitigation


def _refuse(spec: BackendSpec, methods: Sequence[str]) -> None:
    """Raise :class:`ConfigError` for an option of a method that is not asked for."""
    for key in ("zne_factors", "zne_fit", "pec_overhead"):
        method = key.partition("_")[0]
        if key in spec.options and method not in methods:
            raise ConfigError(f"Backend option {key} is for mitigation={method}, got {str(spec)!r}.")


def _factors(spec: BackendSpec) -> tuple[int, ...]:
    text = spec.options.get("zne_factors")
    if text is None:
        return _FACTORS
    numbers = [int(part) if part.isdecimal() and len(part) < 4 else 0 for part in text.split(",")]
    if not all(number % 2 and number <= _LARGEST for number in numbers) or sorted(set(numbers)) != numbers:
        raise ConfigError(
            f"zne_factors must be odd numbers from 1 to {_LARGEST}, each larger than the last, such as "
            f"{','.join(map(str, _FACTORS))}, since folding runs a gate 1, 3, 5, … times; got {text!r}."
        )
    if not 2 <= len(numbers) <= _MOST:
        raise ConfigError(f"zne_factors must be 2 to {_MOST} numbers, which a fit goes through; got {text!r}.")
    return tuple(numbers)


def _twirling(spec: BackendSpec, methods: Sequence[Method]) -> bool:
    value = spec.options.get("twirling")
    if value not in (None, "on", "off"):
        raise unknown_name("twirling", str(value), ("on", "off"))
    if value == "off" and "pec" in methods:
        raise ConfigError("mitigation=pec inverts the noise of twirled gates: leave twirling=off out.")
    return methods != ["trex"] if value is None else value == "on"


def _target(spec: BackendSpec) -> str:
    return spec.name if spec.target is None else f"{spec.name}:{spec.target}"


@dataclass(frozen=True)
class Folding:
    """A pass manager whose circuits have their two-qubit gates folded.

    Attributes:
        manager: Transpiles a circuit first, or None.
        factor: The noise factor, odd: how many gates stand for one.
    """

    manager: Any
    factor: int

    def run(self, circuit: QuantumCircuit) -> QuantumCircuit:
        """Return the circuit in the manager's gates and layout, folded.

        Raises:
            MissingDependencyError: Without qiskit-mitigation.
        """
        try:
            from qiskit_mitigation.zne.gate_folding import GateFoldingPass
        except ImportError as error:
            raise missing_dependency("qiskit-mitigation", "ibm") from error
        if self.manager is not None:
            circuit = self.manager.run(circuit)
        folded = PassManager([GateFoldingPass(self.factor)]).run(circuit)
        folded._layout = circuit.layout  # the pass manager's own is empty
        return folded


def twirled_shots(shots: int) -> int:
    """Return the samples that Qiskit Runtime takes of a twirled circuit: equal shares of at least 64 for each twirl."""
    share = max(_SHARE, math.ceil(shots / _TWIRLS))
    return share * math.ceil(shots / share)
