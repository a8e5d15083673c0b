"""A request to a device: its key, the same in every process, and the bytes from which another process rebuilds it."""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from qiskit import QuantumCircuit, qpy
from qiskit.exceptions import QiskitError
from qiskit.primitives import BitArray
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qiskit_qattn.backends.jobs.circuit_text import circuit_text, plain_parameters
from qiskit_qattn.backends.jobs.device import Bits, Pub, Values
from qiskit_qattn.backends.values import precision_of
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.forks import cached_property
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.untrusted import as_type

_FORMAT = 1  # part of the key: raise it when the text of a circuit changes
#: What numpy, zipfile, json and Qiskit raise for contents that are not what they should be.
_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    QiskitError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
#: Where a circuit's metadata says what it was transpiled from, and for which inputs: the same on every device. Where
#: several circuits were composed into one, it is the list of what each PUB of the job was.
SOURCE = "qiskit-qattn source"


@dataclass(frozen=True)
class Request:
    """PUBs for one job on one device, all of an Estimator or all of a Sampler.

    Attributes:
        pubs: The PUBs.
        precision: Target standard error of every expectation, above 0; of a Sampler's, that of their shots.
        device: Name of the device.
        settings: Everything else that changes what the device returns.
    """

    pubs: tuple[Pub, ...]
    precision: float
    device: str
    settings: str

    @classmethod
    def of(cls, pubs: Iterable[EstimatorPubLike], precision: float, device: str, settings: str) -> Request:
        """Return the request of what an Estimator's ``run`` is given.

        Raises:
            ConfigError: For PUBs of several precisions, or one that is not above 0.
        """
        coerced = tuple(EstimatorPub.coerce(pub, precision) for pub in pubs)
        found = {float(pub.precision) for pub in coerced} or {float(precision)}
        if len(found) > 1:
            raise ConfigError(f"A job on {device} has one precision, got PUBs of {sorted(found)}; run them separately.")
        value = found.pop()
        if not 0 < value < math.inf:
            raise ConfigError(f"{device} samples, so precision must be above 0, got {value}.")
        return cls(coerced, value, device, settings)

    @classmethod
    def of_samples(cls, pubs: Iterable[SamplerPub], device: str, settings: str) -> Request:
        """Return the request of a Sampler's PUBs.

        Raises:
            ConfigError: For PUBs of several numbers of shots.
        """
        given = tuple(pubs)
        found = {pub.shots for pub in given} or {1}
        if len(found) > 1:
            raise ConfigError(f"A job on {device} has one number of shots, got {sorted(found)}; run them apart.")
        return cls(given, precision_of(found.pop()), device, settings)

    @property
    def shots(self) -> int:
        r"""Samples per circuit, :math:`\lceil 1 / \varepsilon^2 \rceil`."""
        return math.ceil(1 / self.precision**2)

    @cached_property
    def key(self) -> str:
        """The SHA-256 of everything that changes what the device returns, in hexadecimal.

        Names of parameters and circuits do not count, nor do global phases and metadata.
        """
        about = [_FORMAT, self.device, self.settings, float(self.precision).hex(), len(self.pubs)]
        return _digest(_json(about), *(part for parts in self._parts for part in parts))

    @cached_property
    def work(self) -> str:
        """As :attr:`key`, but the same on every device: with a circuit's ``SOURCE``, if it has one, in its place."""
        found = [(pub.circuit.metadata or {}).get(SOURCE) for pub in self.pubs]
        side_by_side = next((source for source in found if isinstance(source, list)), None)
        sources = side_by_side or found  # of the PUBs that the first was composed of
        about = [_FORMAT, self.settings, float(self.precision).hex(), len(sources)]
        parts = list[bytes]()
        samples = any(isinstance(pub, SamplerPub) for pub in self.pubs)  # whose source says nothing of parameters
        for source, own in zip(sources, self._parts if sources is found else [[]] * len(sources), strict=True):
            parts += own if source is None else [str(source).encode(), *(own[1:] if samples else ())]
        return _digest(_json(about), *parts)

    @cached_property
    def _parts(self) -> list[list[bytes]]:
        """For each PUB its circuit, what is asked of it, and its values."""
        texts: dict[int, bytes] = {}
        parts = []
        for pub in self.pubs:
            if id(pub.circuit) not in texts:  # PUBs of one job often share a circuit
                texts[id(pub.circuit)] = circuit_text(pub.circuit).encode()
            values = _values_of(pub)
            parts.append([texts[id(pub.circuit)], _json([list(values.shape), _asked(pub)]), values.tobytes()])
        return parts

    def pack(self) -> bytes:
        """Return the request as the bytes of an npz file, without pickled objects.

        Parameters are renamed by their order, so that parts of a ``ParameterVector`` can be read back alone.
        """
        circuits: dict[int, int] = {}
        plain: list[QuantumCircuit] = []
        arrays: dict[str, np.ndarray] = {}
        for index, pub in enumerate(self.pubs):
            if id(pub.circuit) not in circuits:
                circuits[id(pub.circuit)] = len(plain)
                plain.append(plain_parameters(pub.circuit))
            arrays[f"values_{index}"] = _values_of(pub)
        stream = io.BytesIO()
        qpy.dump(plain, stream)
        about = {
            "precision": self.precision,
            "device": self.device,
            "settings": self.settings,
            "pubs": [
                {"circuit": circuits[id(pub.circuit)]}
                | ({"observables": _asked(pub)} if isinstance(pub, EstimatorPub) else {"shots": pub.shots})
                for pub in self.pubs
            ],
        }
        packed = io.BytesIO()
        np.savez_compressed(packed, circuits=_bytes(stream.getvalue()), about=_bytes(_json(about)), **arrays)  # type: ignore[arg-type]
        return packed.getvalue()

    @classmethod
    def unpack(cls, content: bytes) -> Request:
        """Return the request that :meth:`pack` wrote; it has the same key.

        Raises:
            ValueError: For any other content.
        """
        with _arrays(content) as arrays:
            circuits = qpy.load(io.BytesIO(arrays["circuits"].tobytes()))
            about = as_type(json.loads(arrays["about"].tobytes()), _About)
            pubs: list[Pub] = []
            for index, item in enumerate(about["pubs"]):
                circuit = circuits[item["circuit"]]
                names = tuple(param.name for param in circuit.parameters)
                values = arrays[f"values_{index}"]
                bindings = BindingsArray({names: values} if names else {}, shape=values.shape[:-1])
                if (shots := item.get("shots")) is not None:
                    pubs.append(SamplerPub(circuit, bindings, shots))
                    continue
                shape, terms = item["observables"]
                observables = ObservablesArray([dict(entry) for entry in terms]).reshape(tuple(shape))
                pubs.append(EstimatorPub(circuit, observables, bindings, about["precision"]))
            return cls(tuple(pubs), about["precision"], about["device"], about["settings"])


class _PubCircuit(TypedDict):
    circuit: int


class _PubAbout(_PubCircuit, total=False):
    observables: list
    shots: int


class _About(TypedDict):
    precision: float
    device: str
    settings: str
    pubs: list[_PubAbout]


def pack_values(values: Sequence[Values | Bits]) -> bytes:
    """Return results as the bytes of an npz file."""
    arrays: dict[str, np.ndarray] = {}
    names: list[list[list[Any]]] = []  # of each PUB's registers, with their numbers of bits
    for i, item in enumerate(values):
        if isinstance(item, Values):
            arrays |= {f"evs_{i}": item.evs, f"stds_{i}": item.stds}
        else:
            arrays |= {f"bits_{i}_{j}": bits.array for j, bits in enumerate(item.registers.values())}
            names.append([[name, bits.num_bits] for name, bits in item.registers.items()])
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays | ({"registers": _bytes(_json(names))} if names else {}))  # type: ignore[arg-type]
    return packed.getvalue()


def unpack_values(content: bytes) -> Sequence[Values | Bits]:
    """Return the results that :func:`pack_values` wrote.

    Raises:
        ValueError: For any other content.
    """
    with _arrays(content) as arrays:
        if "registers" in arrays:
            names = as_type(json.loads(arrays["registers"].tobytes()), list[list[list]])
            return [
                Bits({str(name): BitArray(arrays[f"bits_{i}_{j}"], size) for j, (name, size) in enumerate(some)})
                for i, some in enumerate(names)
            ]
        found = [Values(arrays[f"evs_{index}"], arrays[f"stds_{index}"]) for index in range(len(arrays) // 2)]
        if not all(item.evs.dtype.kind == item.stds.dtype.kind == "f" for item in found):
            raise ValueError("it holds other values than real numbers")
        return found


@contextmanager
def _arrays(content: bytes) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield the arrays of an npz file; all that goes wrong with them is a ``ValueError``."""
    try:
        if not isinstance(content, bytes):
            raise ValueError(f"it is a {type(content).__name__}, not bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            yield arrays
    except _UNREADABLE as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _values_of(pub: Pub) -> np.ndarray:
    """Return parameter values, shape ``(…, P)``, in the order of the circuit's parameters."""
    values = pub.parameter_values.as_array(list(pub.circuit.parameters))
    return np.ascontiguousarray(values, dtype="<f8")


def _asked(pub: Pub) -> list:
    """Return the shape of a PUB's observables and each one's terms in alphabetical order; of a Sampler's, registers."""
    if isinstance(pub, SamplerPub):
        where = pub.circuit.find_bit
        return [[register.name, [where(bit).index for bit in register]] for register in pub.circuit.cregs]
    terms = [[[label, float(factor)] for label, factor in sorted(item.items())] for item in _flat(pub.observables)]
    return [list(pub.observables.shape), terms]


def _flat(observables: ObservablesArray) -> list[dict[str, float]]:
    return observables.ravel().tolist()


def source_of(circuit: AttentionCircuit) -> str:
    """Return a text that says what an attention circuit computes; its gates on a device say that no longer."""
    order = list(circuit.circuit.parameters)
    places = [[order.index(each) for each in some] for some in (circuit.input_params, circuit.weight_params)]
    observables = [
        [[label, [value.real, value.imag]] for label, value in each.to_list()] for each in circuit.observables
    ]
    return _digest(circuit_text(circuit.circuit).encode(), _json([places, observables]))


def source_of_rows(source: str, rows: np.ndarray, about: object) -> str:
    """Return what :func:`source_of` says, with the inputs and weights of each row, and what else counts."""
    return _digest(source.encode(), _json([list(rows.shape), about]), np.ascontiguousarray(rows, "<f8").tobytes())


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, dtype=np.uint8)
