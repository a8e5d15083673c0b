"""Release notes of a tag, and what has to agree before it is published: ``python -m tests.release.ready v1.2.3``."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path


def notes(changelog: str, version: str) -> str:
    """Return what the changelog says of a version; empty if nothing."""
    sections = re.split(r"^## \[(.+?)\].*\n", changelog, flags=re.MULTILINE)[1:]
    return dict(zip(sections[::2], sections[1::2], strict=True)).get(version, "").strip()


def problems(root: Path, tag: str, repository: str | None = None) -> list[str]:
    """Return why a tag may not be published, a sentence each: its version, its notes, and where the project lives.

    Args:
        root: The folder of the repository.
        tag: As git has it, v1.2.3.
        repository: The address that publishes; ``Repository`` in pyproject.toml has to be the same.
    """
    version = re.search(r'^__version__ = "(.+)"', (root / "qiskit_qattn/__init__.py").read_text("utf-8"), re.MULTILINE)
    found = []
    if version is None or tag != f"v{version[1]}":
        found.append(f"The tag is {tag}, the package's version is {version and version[1]}.")
    cited = re.search(r"^version: (.+)$", (root / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    if cited is None or tag != f"v{cited[1]}":
        found.append(f"The tag is {tag}, CITATION.cff has version {cited and cited[1]}.")
    if not notes((root / "CHANGELOG.md").read_text("utf-8"), tag.removeprefix("v")):
        found.append(f"CHANGELOG.md has no section [{tag.removeprefix('v')}], or nothing in it.")
    named = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {}).get("Repository")
    if named is None or named.rstrip("/") != (repository or named).rstrip("/"):
        found.append(f"Repository in [project.urls] is {named}, and must be {repository or 'set'}: README links there.")
    return found


if __name__ == "__main__":
    here = Path(__file__).parents[2]
    if found := problems(here, sys.argv[1], os.environ.get("REPOSITORY")):
        sys.exit("\n".join(found))
    print(notes((here / "CHANGELOG.md").read_text("utf-8"), sys.argv[1].removeprefix("v")))
