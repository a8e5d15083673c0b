"""A sampler of circuits as they are written, on a backend string or a chain of them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self, cast

from qiskit import QuantumCircuit
from qiskit.primitives import BasePrimitiveJob, BaseSamplerV2, PrimitiveResult, SamplerPubResult
from qiskit.primitives.containers.sampler_pub import SamplerPub, SamplerPubLike

from qiskit_qattn.backends.jobs.circuit_text import circuit_text
from qiskit_qattn.backends.jobs.request import SOURCE
from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import BackendError, CircuitError, ConfigError
from qiskit_qattn.nn.audit import Audit

_KEPT = 64  # circuits in the gates of each link


def sampler(where: Place | Backend | str) -> PlacedSampler:
    """Return a sampler of circuits as they are written, on a backend string or a chain of them.

    Each backend's pass manager puts a circuit into its gates and layout, once. A run that fails on a backend of a
    chain goes to the next, with a :class:`~qiskit_qattn.nn.audit.FallbackWarning`, a line in the log and an entry in
    ``audit.falls``; the metadata of every result names the ``backend`` that it is from. Sessions are closed at the end
    of a ``with`` statement, or when the sampler is dropped.

    Args:
        where: A string such as ``"ibm:ibm_fez?budget=60s -> aer?noise=fake_fez&shots=4096"``, or what one opened.

    Raises:
        UnknownNameError, ConfigError: For a string that names no backends; for a group, or ``classical`` at the end.
        BackendError: If no backend could be opened.
    """
    return PlacedSampler(Place.of(where))


class PlacedSampler(BaseSamplerV2):
    """The sampler that :func:`sampler` returns.

    Args:
        place: The backends.

    Attributes:
        place: The backends.
        audit: How many runs each backend answered, and what failed.
    """

    def __init__(self, place: Place) -> None:
        for name, link in place.links:
            if not isinstance(link, Backend | BackendError):
                raise ConfigError(
                    f"The group {name!r} divides rows of heads; a sampler takes one backend per link of a chain."
                )
        if place.end == "classical":
            raise ConfigError(f"A sampler has no classical twin to end {place.name!r} with; leave 'classical' out.")
        self.place, self.audit = place, Audit(None, "sampler")
        self._isa: OrderedDict[tuple[str, int], tuple[QuantumCircuit, str, QuantumCircuit]] = OrderedDict()

    def run(self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None) -> PlacedJob:
        """Sample PUBs on the first backend that takes them.

        Args:
            pubs: Circuits that no backend's gates are needed for, or tuples of one, its parameter values and shots.
            shots: Samples of each circuit and set of parameters where a PUB gives none; the backend's by default.

        Raises:
            BackendError, CircuitError: Of the last backend.
            ConfigError: As the backend's sampler does.
        """
        self.audit.count += 1
        return PlacedJob(self, [SamplerPub.coerce(pub, shots) for pub in pubs], self.audit.count)

    def on(self, name: str, backend: Backend, pubs: Sequence[SamplerPub]) -> list[SamplerPub]:
        """Return PUBs in the gates and layout of a backend.

        Raises:
            CircuitError: For one that was transpiled already, or cannot be.
        """
        circuits = {id(pub.circuit): pub.circuit for pub in pubs}
        isa = {key: self._on(name, backend, circuit) for key, circuit in circuits.items()}
        return [SamplerPub(isa[id(pub.circuit)], pub.parameter_values, pub.shots) for pub in pubs]

    def _on(self, name: str, backend: Backend, circuit: QuantumCircuit) -> QuantumCircuit:
        if backend.pass_manager is None:
            return circuit
        if circuit.layout is not None:
            if self.place.single is None:
                raise CircuitError("A circuit that was transpiled fits one backend: give a chain the one before.")
            return circuit
        text = hashlib.sha256(circuit_text(circuit).encode()).hexdigest()
        known = self._isa.get((name, id(circuit)))
        if known is None or known[0] is not circuit or known[1] != text:  # it may have been edited in place
            isa = backend.pass_manager.run(circuit)
            isa.metadata = (circuit.metadata or {}) | {SOURCE: text}  # the same on every device
            known = circuit, text, isa
        self._isa[name, id(circuit)] = known
        while len(self._isa) > _KEPT:
            self._isa.popitem(last=False)
        return known[2]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the sessions of the backends."""
        self.place.__exit__(kind, error, traceback)


class PlacedJob(BasePrimitiveJob[PrimitiveResult, Any]):
    """A run of a :class:`PlacedSampler`, sent to the first backend that takes it; ``result`` goes on from there.

    Args:
        sampler: The sampler.
        pubs: The PUBs.
        number: The number of the run.
    """

    def __init__(self, sampler: PlacedSampler, pubs: Sequence[SamplerPub], number: int) -> None:
        self._sampler, self._pubs, self._number = sampler, list(pubs), number
        self._at = -1  # the number of the link
        self._result: PrimitiveResult[SamplerPubResult] | None = None
        self._inner = self._send(None)
        super().__init__(self._inner.job_id())

    def _send(self, error: BackendError | CircuitError | None) -> BasePrimitiveJob[Any, Any]:
        """Return the job on the next backend that takes it, after the error of the last one, if there was one."""
        links = self._sampler.place.links
        while True:
            if error is not None:
                if self._at + 1 == len(links):
                    raise error
                ours = error if isinstance(error, BackendError) else BackendError(str(error))
                self._sampler.audit.fall(self._number, "forward", links[self._at][0], links[self._at + 1][0], ours)
            self._at += 1
            name, link = links[self._at]
            try:
                if not isinstance(link, Backend):
                    raise cast("BackendError", link)
                return link.sampler.run(self._sampler.on(name, link, self._pubs))
            except (BackendError, CircuitError) as failed:
                error = failed

    def result(self) -> PrimitiveResult[SamplerPubResult]:
        """Return the samples of the first backend that does not fail.

        Raises:
            BackendError, CircuitError: Of the last backend.
        """
        while self._result is None:
            try:
                found = self._inner.result()
            except (BackendError, CircuitError) as error:
                self._inner = self._send(error)
                continue
            name = self._sampler.place.links[self._at][0]
            self._sampler.audit.calls[name] += 1
            for pub, part in zip(self._pubs, found, strict=True):
                part.metadata.update(backend=name, circuit_metadata=pub.circuit.metadata)
            self._result = found
        return self._result

    def job_id(self) -> str:
        """Return the id of the job on the backend that has it now."""
        return self._inner.job_id()

    def status(self) -> Any:
        """Return the state of that job."""
        return self._inner.status()

    def done(self) -> bool:
        """Return whether it is done."""
        return self._inner.done()

    def running(self) -> bool:
        """Return whether it runs."""
        return self._inner.running()

    def cancelled(self) -> bool:
        """Return whether it was cancelled."""
        return self._inner.cancelled()

    def in_final_state(self) -> bool:
        """Return whether it has ended, successfully or not."""
        return self._inner.in_final_state()

    def cancel(self) -> None:
        """Cancel it."""
        self._inner.cancel()
