"""The package's description for an index: README.md with links that work outside of the repository."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?\[[^\]]*\]\()(?![a-z]+:|#)([^)\s]+)")


def description(readme: str, repository: str | None, version: str) -> str:
    """Return the text with its links and pictures at the tag of the version; as it is without a repository."""
    if not repository:
        return readme

    def absolute(match: re.Match[str]) -> str:
        view = "raw" if match[1].startswith("!") else "blob"
        return f"{match[1]}{repository.rstrip('/')}/{view}/v{version}/{match[2]}"

    return _LINK.sub(absolute, readme)


class Description(MetadataHookInterface):
    """Sets ``readme`` from README.md, ``Repository`` in ``[project.urls]`` and the version."""

    def update(self, metadata: dict) -> None:
        """Add the readme to the metadata."""
        source = Path(self.root, "qiskit_qattn/__init__.py").read_text("utf-8")
        version = re.search(r'^__version__ = "(.+)"', source, re.MULTILINE)
        assert version is not None
        text = Path(self.root, "README.md").read_text("utf-8")
        text = description(text, metadata.get("urls", {}).get("Repository"), version[1])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
