"""The plan of a noise sweep: what is measured, and on which backend string."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from qiskit_qattn.backends.registry import registration
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, RunFolderError, counted, unknown_name

ModelName = Literal["trained", "control", "aware"]


@dataclass(frozen=True)
class Noise:
    """A kind of noise with one strength, p.

    Attributes:
        options: The options of ``density_matrix`` that are set to p.
        meaning: What happens with probability p, in a sentence.
    """

    options: tuple[str, ...]
    meaning: str


_GATES = "After every gate, including those of the encoding, "
NOISES = {
    "depolarizing": Noise(
        ("p1", "p2"), f"{_GATES}its qubits are replaced by the maximally mixed state with probability p."
    ),
    "amplitude_damping": Noise(("gamma",), f"{_GATES}each of its qubits decays from |1⟩ to |0⟩ with probability p."),
    "phase_damping": Noise(("gamma",), f"{_GATES}each of its qubits loses its phase with probability p."),
    "readout": Noise(("readout",), "Each measured bit flips with probability p; gates are noiseless."),
}


@dataclass(frozen=True)
class Point:
    """A point of a sweep: one model on one backend.

    Attributes:
        model: ``trained``, as the run left it; ``control``, trained for more steps without noise; or ``aware``,
            trained for as many steps under noise.
        strength: p, or None for no noise.
        shots: Shots per measurement basis, or None for exact expectations.
        on: A backend string, in place of a strength or shots; empty for these.
        mitigation: How errors are mitigated, as in the option ``mitigation`` of a backend string; empty for not at all.
    """

    model: ModelName
    strength: float | None = None
    shots: int | None = None
    on: str = ""
    mitigation: str = ""

    @property
    def label(self) -> str:
        """The value on the axis, in words."""
        mitigation = f", {self.mitigation}" if self.mitigation else ""
        if self.on:
            return self.on + mitigation
        if self.strength is not None:
            return f"p = {self.strength:g}{mitigation}"
        return "no noise" if self.shots is None else counted(self.shots, "shot")


@dataclass(frozen=True, kw_only=True)
class NoiseSweep:
    """The plan of a sweep.

    Attributes:
        run: A finished run folder of ``qattn train``; it is only read.
        out: The sweep's folder.
        noise: A name in :data:`NOISES`.
        strengths: Values of p, with exact expectations.
        shots: Numbers of shots, without noise.
        backends: Backend strings of simulators, such as one with the noise of a device.
        mitigations: Ways to mitigate errors, each as in the option ``mitigation`` of a backend string. The run's own
            model is also measured with each of them, at every p above 0 and on every backend.
        aware_steps: Steps of noise-aware training, and of the control without noise; 0 for neither.
        aware_strength: p of the noise-aware training.
        windows: Number of windows of the validation split, the same at every point.
        seed: Seed of the sampling.

    Raises:
        UnknownNameError: For an unknown noise, or one without a strength p.
        ConfigError: For a value out of range.
        RunFolderError: If ``out`` is the run's folder or inside it.
    """

    run: Path
    out: Path
    noise: str = "depolarizing"
    strengths: tuple[float, ...] = ()
    shots: tuple[int, ...] = ()
    backends: tuple[str, ...] = ()
    mitigations: tuple[str, ...] = ()
    aware_steps: int = 0
    aware_strength: float | None = None
    windows: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every field, so that an invalid one fails before any work."""
        if self.noise not in NOISES:
            raise unknown_name("noise with a strength p", self.noise, NOISES)
        for name, p in (*(("p", p) for p in self.strengths), ("aware_p", self.aware_strength)):
            if p is not None and not 0 <= p <= 1:  # NaN included
                raise ConfigError(f"{name} is {p:g}, but must be a probability between 0 and 1.")
        for count in self.shots:
            if count < 1:
                raise ConfigError(f"shots is {count}, but must be at least 1.")
        if self.windows < 2:
            raise ConfigError(f"windows is {self.windows}, but a standard error takes at least 2.")
        if not (self.strengths or self.shots or self.backends):
            raise ConfigError("There is nothing to sweep; give noise strengths, numbers of shots, or backends.")
        if self.mitigations and not (self.backends or any(self.strengths)):
            raise ConfigError("There are no errors to mitigate; give noise strengths above 0, or backends.")
        for text in self.backends:
            if (given := BackendSpec.parse(text)).options.keys() & {"mitigation", "resilience"}:
                raise ConfigError(f"{str(given)!r} says how errors are mitigated; a sweep does that with --mitigation.")
        if self.aware_steps < 0:
            raise ConfigError(f"aware_steps is {self.aware_steps}, but must be at least 0.")
        if self.aware_steps and not self.aware_strength:
            raise ConfigError(f"{self.aware_steps} steps of noise-aware training need aware_p, the p to train under.")
        if self.aware_strength is not None and not self.aware_steps:
            raise ConfigError(
                f"aware_p is {self.aware_strength:g}, but aware_steps is 0; give how many steps to train."
            )
        if self.out.resolve().is_relative_to(self.run.resolve()):
            raise RunFolderError(
                f"{str(self.out)!r} is in the run folder, which a sweep must not change; give another --out."
            )

    @property
    def models(self) -> tuple[ModelName, ...]:
        """The models that are measured."""
        return ("trained", "control", "aware") if self.aware_steps else ("trained",)

    def points(self) -> list[Point]:
        """Return the points, for each model its exact loss without noise first."""
        strengths, shots = sorted(set(self.strengths)), sorted(set(self.shots))
        found = []
        for model in self.models:
            noisy = [Point(model, strength=p) for p in strengths] + [Point(model, on=on) for on in self.backends]
            mitigated = [
                replace(point, mitigation=mitigation)
                for point in (noisy if model == "trained" else ())
                for mitigation in self.mitigations
                if point.strength != 0
            ]
            found += [Point(model), *noisy, *(Point(model, shots=count) for count in shots), *mitigated]
        return found

    def backend(self, point: Point) -> str:
        """Return the backend string of a point."""
        if point.strength is not None or point.on:
            spec = BackendSpec.parse(point.on or self.noisy(point.strength or 0.0))
            options = {"mitigation": point.mitigation} if point.mitigation else {}
            if not options and "resilience" in registration(spec.name).provider.options:
                options = {"resilience": "0"}  # which IBM's Estimator sets to 1 by itself
            return str(replace(spec, options=dict(sorted({**spec.options, **options}.items()))))
        return "statevector" if point.shots is None else f"statevector?seed={self.seed}&shots={point.shots}"

    def noisy(self, strength: float) -> str:
        """Return the backend string of the noise at a strength."""
        options = "&".join(f"{option}={strength!r}" for option in NOISES[self.noise].options)
        return f"density_matrix?noise={self.noise}&{options}"
