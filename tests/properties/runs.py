"""Runs a check on random circuits that hold a given gate."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from hypothesis import given, seed, settings

from .circuits import Example, examples


def run_examples(check: Callable[[Example], None], gate: str | None, max_qubits: int, count: int | None = None) -> None:
    """Run a check on random circuits: the same ones in each run of the tests, new ones in the profile fuzz.

    Args:
        check: Raises an error for an example that is wrong.
        gate: A class of Qiskit's library that each circuit holds; None for any.
        max_qubits: Of the examples.
        count: How many, if not as many as the profile says.
    """
    fuzzing = settings.get_current_profile_name() == "fuzz"
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
