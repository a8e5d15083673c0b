"""Runs checks on random circuits that hold a given gate."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

from hypothesis import given, reject, seed, settings

from . import checks
from .circuits import Example, examples
from .engines import ENGINES
from .reference import Reference, reference


def run_examples(check: Callable[[Example], None], gate: str | None, max_qubits: int, count: int | None = None) -> None:
    """Run a check on random circuits: the same ones in each run of the tests, new ones in the profile fuzz.

    Args:
        check: Raises an error for an example that is wrong.
        gate: A class of Qiskit's library that each circuit holds; None for any.
        max_qubits: Of the examples.
        count: How many, if not as many as the profile says.
    """
    fuzzing = is_fuzzing()
    profile = settings(settings.get_profile("fuzz" if fuzzing else "properties"))
    if count is not None and not fuzzing:
        profile = settings(profile, max_examples=count)

    @profile
    @given(examples(gate, max_qubits))
    def run(example: Example) -> None:
        check(example)

    if not fuzzing:
        run = seed(zlib.crc32(str(gate).encode()))(run)
    run()


def check_engine(gate: str, engine: str) -> None:
    """Compare an exact engine with Qiskit's values on random circuits that hold a gate.

    Two of torch's transforms are tried on each gate, all of them in the profile fuzz.
    """
    most, build = ENGINES[engine]
    transforms = list(checks.TRANSFORMS)
    if not is_fuzzing():
        transforms = random.Random(f"{engine} {gate}").sample(transforms, 2)

    def check(example: Example) -> None:
        found = known(example)
        function = build(example)
        checks.check_values(function, found)
        checks.check_derivatives(function, found)
        checks.check_transforms(function, found, transforms)

    run_examples(check, gate, most)


def known(example: Example) -> Reference:
    """Return what Qiskit says; an example that it cannot evaluate is no example."""
    found = reference(example)
    return found if found is not None else reject()


def is_fuzzing() -> bool:
    """Tell whether circuits are new ones in each run."""
    return settings.get_current_profile_name() == "fuzz"
