"""Backends by name: a registry of plug-ins.

A name stands for a :class:`Provider`. Providers import this module, not the other way round: those of this package are
listed below as entry points, which are loaded when their name is used; those of other packages are entry points of the
group ``qiskit_qattn.backends``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

from qiskit.primitives import BaseEstimatorV2, BaseSamplerV2
from qiskit.primitives.containers.sampler_pub import SamplerPubLike

from qiskit_qattn.backends.gradients import Gradient, ParameterShift
from qiskit_qattn.backends.mitigation import Mitigation
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.backends.tiling import Tiling
from qiskit_qattn.backends.values import precision_of as precision_of
from qiskit_qattn.errors import BackendError, ConfigError, MissingDependencyError, unknown_name
from qiskit_qattn.library.attention_circuit import AttentionCircuit

if TYPE_CHECKING:
    from torch import nn  # `get_backend` is used without torch too

GROUP = "qiskit_qattn.backends"
_PACKAGE = "qiskit-qattn"
_OURS = {
    name: EntryPoint(name, f"qiskit_qattn.backends.{where}", GROUP)
    for name, where in {
        "aer": "aer:PROVIDER",
        "braket": "braket.provider:PROVIDER",
        "density_matrix": "local:DENSITY_MATRIX",
        "ibm": "ibm.provider:PROVIDER",
        "statevector": "local:STATEVECTOR",
    }.items()
}
_TORCH_DEVICE = "A device of torch is chosen with model.to({name!r}); a backend is where circuits run."
_HINTS = dict.fromkeys(("cpu", "cuda", "gpu", "mps"), _TORCH_DEVICE)
_HINTS |= dict.fromkeys(("aer_simulator", "qasm_simulator", "statevector_simulator"), "Did you mean 'aer'?")
_HINTS |= dict.fromkeys(("dm1", "sv1", "tn1"), "Did you mean 'braket:{name}'?")
_STARTS = dict.fromkeys(("ibm_", "fake_"), "Did you mean 'ibm:{name}'?")


@dataclass(frozen=True)
class Backend:
    """Where circuits run.

    Attributes:
        name: The backend string in normal form, with the name of the device where the string left the choice open.
        estimator: The primitive that evaluates PUBs.
        pass_manager: Transpiles a circuit for it, or None where any circuit will do.
        precision: Largest standard error of an expectation that its shots give; 0 is exact.
        shots: Samples per measurement basis; None where values are exact, or where shots follow from the precision.
        differentiable: Whether a torch engine computes the values, so that autograd applies.
        max_pub_size: Largest number of parameter sets in one PUB, or None for no limit.
        dedupe: Whether equal rows of a batch are evaluated once, and so share their samples.
        gradient: How values of the estimator are differentiated, where autograd does not apply.
        program: Makes a differentiable torch program of an :class:`AttentionCircuit`, or None where there is none.
        states: Makes a torch program of an attention circuit's state vectors, or None where there is none.
        mitigation: How errors are mitigated, or None.
        price: Price per task and shot in US dollars where the provider publishes one, else None.
        tiling: Where several circuits run side by side, or None where each runs alone.
        sampler: The primitive that samples the classical registers of circuits, which it takes in the gates and layout
            that ``pass_manager`` gives. Equal circuits share samples as ``dedupe`` says; ledger and budget are those of
            the estimator. Nothing is mitigated, and no circuits run side by side.
    """

    name: str
    estimator: BaseEstimatorV2
    pass_manager: Any = None
    precision: float = 0.0
    shots: int | None = None
    differentiable: bool = False
    gradient: Gradient = field(default_factory=ParameterShift)
    program: Callable[[AttentionCircuit], nn.Module] | None = None
    states: Callable[[AttentionCircuit], nn.Module] | None = None
    max_pub_size: int | None = None
    dedupe: bool = True
    mitigation: Mitigation | None = None
    price: tuple[float, float] | None = None
    tiling: Tiling | None = None
    sampler: BaseSamplerV2 = field(default_factory=lambda: NoSampler("This backend has no sampler."))

    def precision_for(self, circuit: AttentionCircuit) -> float:
        r"""Return the precision to run a circuit's PUBs with: that of N shots per measurement basis.

        .. math:: N = \max_m \lceil V_m / \varepsilon^2 \rceil, \qquad V_m = \sum_b \Big(\sum_{P \in b} |c_{mP}|\Big)^2

        where shots follow from a precision ε. V bounds the variance of observable m at one shot of each basis b,
        whatever the state: 1 for a Pauli string. So N depends on no data.
        """
        if self.shots is not None or self.precision == 0:
            return self.precision
        return precision_of(circuit.shots(self.precision).shots)


class NoSampler(BaseSamplerV2):
    """The sampler of a backend that has none.

    Args:
        why: What a run raises, as a :class:`ConfigError`.
    """

    def __init__(self, why: str) -> None:
        self.why = why

    def run(self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None) -> NoReturn:
        """Raise :class:`ConfigError`."""
        raise ConfigError(self.why)


@dataclass(frozen=True)
class Provider:
    """What the name at the start of a backend string refers to.

    Attributes:
        summary: What it runs circuits on, in one line.
        build: Makes the backend of a string; its target and options have been checked against those below.
        options: The options it takes, and what each means.
        targets: What may follow the colon, in words; empty if nothing may.
        choices: The targets that are no device but a way to choose one, which ``build`` does. The name of what it
            returns has the device's own name in their place.
        extra: The extra of the provider's package that installs ``modules``; empty if there is none.
        modules: The modules it imports when it builds a backend.
    """

    summary: str
    build: Callable[[BackendSpec], Backend]
    options: Mapping[str, str] = field(default_factory=dict)
    targets: str = ""
    choices: tuple[str, ...] = ()
    extra: str = ""
    modules: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Return the modules that are not installed."""
        return [name for name in self.modules if not _installed(name)]


@dataclass(frozen=True)
class Registration:
    """A provider under its name.

    Attributes:
        name: The first part of its backend strings.
        package: The distribution that registered it.
        provider: What it refers to.
    """

    name: str
    package: str
    provider: Provider

    @property
    def requirement(self) -> str:
        """What to give pip to install everything it needs."""
        return f"{self.package}[{self.provider.extra}]" if self.provider.extra else self.package

    def build(self, spec: BackendSpec) -> Backend:
        """Return the backend of a parsed string.

        Raises:
            ConfigError: For a target where none is taken, or a value the provider refuses.
            UnknownNameError: For an unknown option.
            MissingDependencyError: If a module it needs is not installed.
        """
        if spec.target is not None and not self.provider.targets:
            raise ConfigError(f"Backend {self.name!r} takes no target, got {spec.target!r}.")
        if "mitigation" in spec.options and "mitigation" not in self.provider.options:
            raise ConfigError(
                f"Backend {self.name!r} has nothing to mitigate: leave mitigation out, or take aer?noise=…, "
                f"density_matrix?noise=…, ibm:<device> or braket:<device>."
            )
        spec.check_options(self.provider.options)
        missing = self.provider.missing()
        if missing:
            raise MissingDependencyError(
                f"Backend {self.name!r} needs {', '.join(missing)}, not installed here. Install with: "
                f'pip install "{self.requirement}"'
            )
        return self.provider.build(spec)


def list_backends() -> list[str]:
    """Return the names that are registered here, ours and third parties'."""
    return sorted({*_OURS, *_others(refresh=True)})


def registration(name: str) -> Registration:
    """Return what is registered under a name.

    Raises:
        UnknownNameError: For an unknown name; the message lists the known ones.
        BackendError: If its package cannot be loaded or names no :class:`Provider`, or two packages claim the name.
    """
    known = _known()
    if name not in known:
        known = _known(refresh=True)  # a package may have been installed since
    if name not in known:
        error = unknown_name("backend", name, known)
        if hint := _HINTS.get(name) or next((text for start, text in _STARTS.items() if name.startswith(start)), ""):
            raise type(error)(f"Unknown backend {name!r}. {hint.format(name=name)} Known: {', '.join(sorted(known))}.")
        raise error
    first, *others = known[name]
    package = _package(first)
    if others:
        claims = ", ".join(sorted({_package(entry) for entry in known[name]}))
        raise BackendError(f"Backend {name!r} is registered more than once, by {claims}; uninstall all but one.")
    try:
        provider = first.load()
    except (Exception, SystemExit) as error:  # whatever a third party's module raises when it is imported
        raise BackendError(
            f"Backend {name!r} of the package {package!r} cannot be loaded from {first.value!r}: {error}. Update or "
            f"uninstall {package}."
        ) from error
    if not isinstance(provider, Provider):
        raise BackendError(
            f"Backend {name!r} of the package {package!r}: {first.value!r} must be a Provider of "
            f"qiskit_qattn.backends.registry, got a {type(provider).__name__}. Update or uninstall {package}."
        )
    return Registration(name, package, provider)


def get_backend(text: str) -> Backend:
    """Return the backend a string names.

    Args:
        text: ``name[:target][?key=value&…]``, for example ``statevector?shots=1024&seed=7``.

    Raises:
        UnknownNameError: For an unknown name or option; the message lists the known ones.
        ConfigError: For a malformed string, target or value.
        MissingDependencyError: If what the backend needs is not installed.
        BackendError: For a provider that cannot be loaded.
    """
    spec = BackendSpec.parse(text)
    return registration(spec.name).build(spec)


def _known(*, refresh: bool = False) -> dict[str, list[EntryPoint]]:
    """Return what claims each name."""
    known = {name: [entry] for name, entry in _OURS.items()}
    for name, entries in _others(refresh=refresh).items():
        known[name] = known.get(name, []) + entries
    return known


def _others(*, refresh: bool = False) -> dict[str, list[EntryPoint]]:
    """Return the entry points of other packages by name; the metadata is read once, and again with ``refresh``."""
    if refresh:
        _installed_entries.cache_clear()
    return _installed_entries(tuple(sys.path))


@lru_cache(maxsize=1)
def _installed_entries(_path: tuple[str, ...]) -> dict[str, list[EntryPoint]]:
    """Return the entry points of our group by name, in lower case as backend strings are read.

    An older version of this package, if installed, lists its backends there too; those are left out.
    """
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        if entry.value.partition(".")[0] != __name__.partition(".")[0]:
            found.setdefault(entry.name.lower(), []).append(entry)
    return found


def _package(entry: EntryPoint) -> str:
    if _OURS.get(entry.name) is entry:
        return _PACKAGE
    return "an unknown package" if entry.dist is None else entry.dist.name


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False
