"""The distribution builds, installs and works; its description renders; a release is refused where things disagree."""

from __future__ import annotations

import email
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from readme_renderer import markdown

import qiskit_qattn as qa
from tests.release import smoke
from tests.release.ready import notes, problems

ROOT = Path(__file__).parents[2]
CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- B.\n\n## [1.2.0] - 2026-01-02\n\n### Fixed\n\n- A.\n"
REPOSITORY = "https://git.example/a/b"


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path):
    """A project whose tag v1.2.0 is ready."""
    (tmp_path / "qiskit_qattn").mkdir()
    (tmp_path / "qiskit_qattn/__init__.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.0\n")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "x"\n[project.urls]\nRepository = "{REPOSITORY}"\n')
    return tmp_path


def test_notes_are_the_section_of_the_version():
    assert notes(CHANGELOG, "1.2.0") == "### Fixed\n\n- A."
    assert notes(CHANGELOG, "1.2") == notes(CHANGELOG, "1.3.0") == ""


def test_a_tag_that_agrees_is_ready(project):
    assert problems(project, "v1.2.0") == problems(project, "v1.2.0", f"{REPOSITORY}/") == []


@pytest.mark.parametrize(
    ("tag", "file", "old", "new", "said"),
    [
        ("v1.3.0", "CHANGELOG.md", "", "", ["package's version is 1.2.0", "CITATION.cff", "no section [1.3.0]"]),
        ("1.2.0", "CHANGELOG.md", "", "", ["package's version is 1.2.0", "CITATION.cff"]),
        ("v1.2.0", "CITATION.cff", "version: 1.2.0", "version: 1.1.0", ["CITATION.cff has version"]),
        ("v1.2.0", "CHANGELOG.md", "### Fixed\n\n- A.", "", ["nothing in it"]),
        ("v1.2.0", "pyproject.toml", "[project.urls]", "[project.scripts]", ["must be https://git.example/a/b"]),
        ("v1.2.0", "pyproject.toml", "example/a", "example/c", ["must be https://git.example/a/b"]),
    ],
)
def test_a_tag_that_disagrees_is_refused(project, tag, file, old, new, said):
    text = (project / file).read_text()
    (project / file).write_text(text.replace(old, new) if old else text)
    found = problems(project, tag, REPOSITORY)
    assert len(found) == len(said)
    assert all(words in sentence for words, sentence in zip(said, found, strict=True))


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_of_the_description_lead_to_the_tag_and_others_stay(hook):
    text = "![a](docs/a.png) [b](docs/b.md#c) [c](#d) [e](https://f.g/h)"
    there = hook.description(text, f"{REPOSITORY}/", "1.2.0")
    raw, blob = f"{REPOSITORY}/raw/v1.2.0", f"{REPOSITORY}/blob/v1.2.0"
    assert there == f"![a]({raw}/docs/a.png) [b]({blob}/docs/b.md#c) [c](#d) [e](https://f.g/h)"
    assert hook.description(text, None, "1.2.0") == text


def test_the_description_of_the_readme_renders_with_every_link_absolute(hook):
    readme = (ROOT / "README.md").read_text("utf-8")
    html = markdown.render(hook.description(readme, REPOSITORY, qa.__version__))
    assert html and "<table>" in html
    links = re.findall(r'(?:href|src)="([^"]+)"', html)
    assert len(links) > 30 and [link for link in links if not link.startswith(("https://", "#"))] == []
    pattern = rf"{REPOSITORY}/(?:raw|blob)/v{re.escape(qa.__version__)}/([^#]+)"
    ours = [match[1] for link in links if (match := re.fullmatch(rf"{pattern}(?:#.*)?", link))]
    assert len(ours) > 30 and [path for path in ours if not (ROOT / path).exists()] == []


def test_workflows_test_what_the_classifiers_promise():
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    test = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text("utf-8"))
    assert test["jobs"]["test"]["strategy"]["matrix"]["python-version"] == promised
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))
    assert release["jobs"]["publish"]["needs"] == ["build", "test"]
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML reads "on" as true


@pytest.mark.more
def test_what_is_built_installs_and_works(tmp_path):
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", ROOT)
    (wheel,), (sdist,) = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = email.message_from_bytes(archive.read(next(name for name in names if name.endswith("METADATA"))))
    assert info["Name"] == "qiskit-qattn" and info["Version"] == qa.__version__
    assert info["Description-Content-Type"] == "text/markdown" and "# qiskit-qattn" in info.get_payload()
    assert {name.split("/")[0] for name in names} == {"qiskit_qattn", f"qiskit_qattn-{qa.__version__}.dist-info"}
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"hatch_build.py", "README.md", "LICENSE", "tests/release/smoke.py"} <= inside
    assert not any(name.startswith(("runs", "docs", "site")) for name in inside)

    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", tmp_path / "installed", wheel)
    shutil.copy(smoke.__file__, tmp_path / "smoke.py")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    said = run(sys.executable, "smoke.py", cwd=tmp_path, env=environment)
    assert str(tmp_path / "installed") in said
