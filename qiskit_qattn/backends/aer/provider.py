"""The backend ``aer``: Qiskit Aer's simulators, with noise and on a GPU where it was built for one."""

from __future__ import annotations

from typing import Any

from qiskit.transpiler import generate_preset_pass_manager

from qiskit_qattn.backends.aer.estimator import AerEstimator
from qiskit_qattn.backends.gradients import gradient_option
from qiskit_qattn.backends.mps.estimator import MAX_BOND, MPSEstimator
from qiskit_qattn.backends.noise import NOISE_OPTIONS, build_noise
from qiskit_qattn.backends.registry import Backend, Provider
from qiskit_qattn.backends.sampling import SAMPLING_OPTIONS, sampling_option
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, unknown_name

METHODS = ("statevector", "density_matrix", "matrix_product_state")
AER_OPTIONS = (
    SAMPLING_OPTIONS
    | NOISE_OPTIONS
    | {
        "device": "CPU (default), or GPU where Aer was built for one",
        "max_bond": f"matrix_product_state: largest bond dimension (default {MAX_BOND})",
    }
)


def aer(spec: BackendSpec) -> Backend:
    """Return an Aer simulator; without a target, the density matrix where there is noise, else the statevector.

    Raises:
        UnknownNameError: For an unknown method, device or noise.
        ConfigError: For a value out of its range, or options that do not go together.
        MissingDependencyError: Where the noise needs IBM's fake devices and they are not installed.
    """
    noise = build_noise(spec)
    method = spec.target or ("statevector" if noise.model is None else "density_matrix")
    if method not in METHODS:
        raise unknown_name("method of backend 'aer'", method, METHODS)
    sampling = sampling_option(spec)
    max_bond = spec.integer("max_bond", minimum=1)
    if max_bond is not None and method != "matrix_product_state":
        raise ConfigError(f"Backend option max_bond={max_bond} needs aer:matrix_product_state, got aer:{method}.")
    if noise.model is not None and method != "density_matrix" and sampling.shots is None:
        raise ConfigError(
            f"aer:{method} with noise follows one random course of the noise a shot: give shots, or take "
            f"aer:density_matrix, which is exact."
        )
    device = _device(spec, method)
    bond = MAX_BOND if max_bond is None else max_bond
    if method == "matrix_product_state" and noise.model is None:
        estimator: Any = MPSEstimator(max_bond=bond, default_precision=sampling.precision, seed=sampling.seed)
        pass_manager = None  # it puts circuits on a line itself
    else:
        simulator = _simulator(method, device, bond)
        estimator = AerEstimator(simulator, noise.model, default_precision=sampling.precision, seed=sampling.seed)
        pass_manager = noise.pass_manager or generate_preset_pass_manager(0, backend=simulator)
    return Backend(
        str(spec),
        estimator,
        pass_manager=pass_manager,
        precision=sampling.precision,
        shots=sampling.shots,
        dedupe=sampling.dedupe,
        gradient=gradient_option(spec, sampling.seed),
    )


PROVIDER = Provider(
    summary="Qiskit Aer's simulators, in this process",
    build=aer,
    options=AER_OPTIONS,
    targets=f"{', '.join(METHODS)}; by default density_matrix where there is noise, else statevector",
    extra="aer",
    modules=("qiskit_aer",),
)


def _device(spec: BackendSpec, method: str) -> str:
    """Return CPU or GPU."""
    from qiskit_aer import AerSimulator

    device = spec.options.get("device", "CPU").upper()
    if device not in ("CPU", "GPU"):
        raise unknown_name("device of backend 'aer'", device, ("CPU", "GPU"))
    available = AerSimulator().available_devices()
    if device not in available:
        raise ConfigError(
            f"device={device}: this Aer was built for {', '.join(available)} only. Leave device out, or install an "
            f"Aer for your GPU, such as qiskit-aer-gpu."
        )
    if device == "GPU" and method == "matrix_product_state":
        raise ConfigError("aer:matrix_product_state runs on the CPU only; leave device=GPU out.")
    return device


def _simulator(method: str, device: str, max_bond: int) -> Any:
    from qiskit_aer import AerSimulator

    bond = {"matrix_product_state_max_bond_dimension": max_bond} if method == "matrix_product_state" else {}
    return AerSimulator(method=method, device=device, enable_truncation=False, **bond)
