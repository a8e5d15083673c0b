"""Providers, ours and third parties', and the page that shows how to write one."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import qiskit_qattn
from qiskit_qattn import get_backend, list_backends
from qiskit_qattn.backends import registry
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


UNINSTALLED = """
import importlib.metadata
import sys
finder = importlib.metadata.MetadataPathFinder
found = finder.find_distributions
finder.find_distributions = lambda context: (each for each in found(context) if each.name != "qiskit-qattn")
import torch
import qiskit_qattn as qa
from qiskit_qattn.backends.prices import ibm_second_price
from qiskit_qattn.backends.registry import registration
assert qa.__file__.startswith(sys.argv[1])
assert "qiskit-qattn" not in {each.name for each in importlib.metadata.distributions()}
print(*qa.list_backends())
for name in qa.list_backends():
    assert registration(name).package == "qiskit-qattn" and registration(name).provider.summary
assert ibm_second_price() > 0
head = qa.QuantumHead(qa.attention_circuit("qisa", 2)).double()
x = torch.randn(3, 4, dtype=torch.float64)
exact = head(x)
for text in ("statevector?method=mps", "density_matrix", "aer"):
    torch.testing.assert_close(head.to_backend(text)(x), exact)
"""


def test_ours_are_the_same_kind_of_thing_as_others():
    assert list_backends() == ["aer", "braket", "density_matrix", "ibm", "statevector"]
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
    with pytest.raises(UnknownNameError, match=r"Unknown option of backend 'plain': 'seed'. Known: shots"):
        get_backend("plain?seed=1")
    with pytest.raises(UnknownNameError, match="Did you mean 'plain'"):
        get_backend("plane")


@pytest.mark.more
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_a_copy_without_metadata_has_its_backends(form, tmp_path):
    where = tmp_path / "copy"
    package = Path(qiskit_qattn.__file__).parent
    shutil.copytree(package, where / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    if form == "archive":
        where = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", where))
    environment = os.environ | {"PYTHONPATH": str(where), "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", UNINSTALLED, str(where)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["aer", "braket", "density_matrix", "ibm", "statevector"]


def test_an_older_version_that_lists_our_backends_does_no_harm(install_package):
    install_package(
        "qiskit-qattn",
        "nothing",
        "",
        {"statevector": "qiskit_qattn.backends.local:STATEVECTOR", "gone": "qiskit_qattn.backends.gone:PROVIDER"},
    )
    assert get_backend("statevector").name == "statevector"
    assert "gone" not in list_backends()
    with pytest.raises(UnknownNameError, match="Unknown backend 'gone'"):
        get_backend("gone")


def test_metadata_is_read_once_and_again_for_an_unknown_name(install_package, monkeypatch):
    get_backend("statevector")
    read, original = [], registry.entry_points
    monkeypatch.setattr(registry, "entry_points", lambda **group: read.append(1) or original(**group))
    for _ in range(3):
        get_backend("statevector?shots=3")
    assert not read
    with pytest.raises(UnknownNameError, match="'late'"):
        get_backend("late")
    assert read
    install_package("late-pack", "probe", PROBE, {"late": "probe:PLAIN"})
    assert get_backend("late?shots=4").shots == 4


def test_a_package_is_found_that_was_installed_in_a_place_already_searched(install_package, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path / "late-pack"))
    with pytest.raises(UnknownNameError):
        get_backend("late")
    install_package("late-pack", "probe", PROBE, {"late": "probe:PLAIN"})
    sys.path.remove(str(tmp_path / "late-pack"))  # which the fixture has put there a second time
    assert get_backend("late").name == "late"
