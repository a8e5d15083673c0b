"""The density matrix without noise equals Qiskit's ``Statevector`` on random circuits, as statevector engines do."""

from __future__ import annotations

import pytest

from .engines import ENGINES
from .gates import TABLE
from .runs import check_engine

# Torch's forward mode loads decompositions through torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.mark.more
@pytest.mark.parametrize("gate", [name for name in TABLE if TABLE[name][0] <= ENGINES["density_matrix"][0]])
def test_values_derivatives_and_transforms(gate: str) -> None:
    check_engine(gate, "density_matrix")
