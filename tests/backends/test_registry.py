"""Providers, ours and third parties', and the page that shows how to write one."""

import re
import tomllib
from pathlib import Path

import pytest

from qiskit_qattn import get_backend, list_backends
from qiskit_qattn.backends.local import STATEVECTOR
from qiskit_qattn.backends.registry import GROUP, Provider, registration
from qiskit_qattn.errors import BackendError, ConfigError, MissingDependencyError, UnknownNameError

PAGE = Path(__file__).parents[2] / "docs" / "third-party-backend.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
PROBE = """
from qiskit_qattn.backends.local import statevector
from qiskit_qattn.backends.registry import Provider
NOT_ONE = statevector
NEEDY = Provider("a test", statevector, {"shots": "samples"}, extra="cloud", modules=("no_such_module", "torch", "a.b"))
PLAIN = Provider("a test", statevector, {"shots": "samples"})
"""


def test_the_worked_example_runs(install_package):
    (_, module), (_, project), (_, usage) = BLOCKS
    assert len(module.splitlines()) < 40
    install_package("qattn-lab", "qattn_lab", module, tomllib.loads(project)["project"]["entry-points"][GROUP])
    assert "lab" in list_backends()
    namespace = {}
    exec(usage, namespace)
    model = namespace["model"]
    assert all(parameter.grad is not None for parameter in model.circuit_parameters())
    assert namespace["continued"].shape == (1, 7)
    backends = {row["kind"]: row["backend"] for row in model.head_backends()}
    assert backends == {"qisa-v3": "lab:ion5?gradient=spsa&shots=256", "classical": "torch"}
    with pytest.raises(UnknownNameError, match=r"Did you mean 'ion9'.*Known: ion5, ion9"):
        get_backend("lab:ion99")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'shots'.*Known: gradient, shots, spsa_samples"):
        get_backend("lab?shot=1")


def test_ours_are_registered_the_same_way():
    assert {"aer", "density_matrix", "statevector"} <= set(list_backends())
    assert registration("statevector").provider is STATEVECTOR
    for name in list_backends():
        found = registration(name)
        assert isinstance(found.provider, Provider) and found.package == "qiskit-qattn"
        assert found.provider.summary and not found.provider.summary.endswith(".")
        assert all(found.provider.options.values())


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ("probe:MISSING", BackendError, "package 'broken-pack' cannot be loaded from 'probe:MISSING'.*uninstall"),
        ("no_such_probe:X", BackendError, "'broken-pack' cannot be loaded.*No module named 'no_such_probe'"),
        ("other_probe:X", BackendError, "'broken-pack' cannot be loaded.*unexpected keyword argument 'sumary'"),
        ("probe:NOT_ONE", BackendError, "'broken-pack': 'probe:NOT_ONE' must be a Provider .*got a function"),
        ("probe:NEEDY", MissingDependencyError, r'no_such_module, a.b, .*: pip install "broken-pack\[cloud\]"'),
    ],
)
def test_a_package_that_does_not_work_is_named(install_package, entry, error, message):
    install_package("broken-pack", "probe", PROBE, {"broken": entry})
    install_package("other-pack", "other_probe", PROBE + "X = Provider(sumary='')", {})
    with pytest.raises(error, match=message):
        get_backend("broken")
    assert get_backend("statevector").name == "statevector"


def test_two_packages_with_one_name(install_package):
    install_package("first-pack", "probe", PROBE, {"statevector": "probe:PLAIN"})
    with pytest.raises(BackendError, match="more than once, by first-pack, qiskit-qattn; uninstall"):
        get_backend("statevector")


def test_what_is_checked_before_a_provider_is_asked(install_package):
    install_package("first-pack", "probe", PROBE, {"Plain": "probe:PLAIN"})
    assert get_backend("PLAIN?shots=4").shots == 4
    with pytest.raises(ConfigError, match="'plain' takes no target, got 'x'"):
        get_backend("plain:x")
    with pytest.raises(UnknownNameError, match=r"Unknown option of backend 'plain' 'seed'. Known: shots"):
        get_backend("plain?seed=1")
    with pytest.raises(UnknownNameError, match="Did you mean 'plain'"):
        get_backend("plane")
