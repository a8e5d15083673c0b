"""Generated strings wherever the package reads any: each ends in a value or in one clear line of ours."""

from __future__ import annotations

import json
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import qiskit_qattn as qa
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.place import settled
from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.backends.spec import BackendSpec, parse_chain
from qiskit_qattn.cli.app import app
from qiskit_qattn.errors import QattnError
from qiskit_qattn.training.config import SETTINGS, resolve
from qiskit_qattn.training.run import saved_config
from qiskit_qattn.training.tokenizer import CharTokenizer

from .payer import HANG
from .services import own_folder
from .tally import Report, Tally

_ODD = [
    "\0",
    "\x1b[31m",
    "\ud800",
    "→",
    "🐈",
    "nan",
    "1e999",
    "-1",
    "9" * 40,
    "%",
    "%zz",
    "&",
    "=",
    "->",
    "../",
    "~",
    " ",
]
_PIECES = st.one_of(
    st.sampled_from(["statevector", "density_matrix", "aer", "ibm", "braket", ":fake_manila", ":local", ":local_dm"]),
    st.sampled_from(
        ["?shots=", "?seed=", "?tiles=", "?noise=", "&p1=", "&budget=", "&timeout=", "classical", "raise", "->"]
    ),
    st.sampled_from(_ODD),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    st.text(max_size=12),
)
_BACKENDS = st.lists(_PIECES, max_size=7).map("".join)
_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(["qisa:1", "classical:2", "statevector", "smoke", "\0", "🐈"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_SETTINGS = st.dictionaries(st.one_of(st.sampled_from(SETTINGS), st.text(max_size=8)), _VALUES, max_size=5)
_NAMES = st.one_of(st.text(max_size=30), st.sampled_from([*_ODD, "x" * 5000, "a/" * 2000]))


def run_strings(kind: str, folder: Path, seed: int, count: int, report: Report) -> None:
    """Try a number of generated strings of a kind."""
    found, notes = Tally(), list[str]()
    with own_folder(folder) as place:
        read, strategy = KINDS[kind]

        @hypothesis.seed(seed)
        @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(strategy)
        def each(value: Any) -> None:
            found.times += 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    with _within(HANG):
                        read(value, place)
                except QattnError:
                    pass
                except TimeoutError:
                    found.hangs += 1
                    notes.append(f"{value!r} hangs")
                except Exception:
                    found.tracebacks += 1
                    notes.append(f"{value!r}: {traceback.format_exc()[-600:]}")

        each()
    report.add(f"strings: {kind}", found, "\n".join(notes[:3]))


def _backend(text: str, _: Path) -> None:
    for read in (BackendSpec.parse, parse_chain, lambda given: settled(given, "statevector")):
        with suppress(QattnError):
            read(text)
    if not text.strip().lower().startswith(("ibm:", "braket:")) or ":fake_" in text or ":local" in text:
        get_backend(text)


def _command(words: list[str], place: Path) -> None:
    """Run a command; in an empty folder none of these trains, or pays."""
    result = CliRunner().invoke(app, words, env={"QATTN_LEDGER": str(place / "ledger.sqlite"), "COLUMNS": "80"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code not in (0, 1, 2) or "Traceback" in result.output:
        raise AssertionError(f"exit code {result.exit_code}: {result.output[-500:]}")


def _toml(text: str, place: Path) -> None:
    path = place / "given.toml"
    path.write_text(text, "utf-8", errors="surrogatepass")
    resolve({"out": str(place / "run")}, config_file=path)


def _json(value: Any, place: Path) -> None:
    """Read it as the files of a model, of a run and of a study."""
    model = place / "model"
    if not model.is_dir():
        tokenizer = CharTokenizer("\nab")
        qa.GPT(qa.GPTConfig(tokenizer.vocab_size, 4, 1, 1, 4, heads="qisa:1", num_qubits=2)).save_pretrained(model)
        tokenizer.save(model / "tokenizer.json")
        (model / "whole.json").write_text((model / "config.json").read_text())
    whole = json.loads((model / "whole.json").read_text())
    changed = {**whole, **value} if isinstance(value, dict) else value
    (model / "config.json").write_text(json.dumps(changed))
    qa.GPT.from_pretrained(model)


def _file(name: str, place: Path) -> None:
    """Use it as the name of a ledger, a run and a model in a folder."""
    inside = place / "files" / name.replace("..", "").lstrip("/")
    uses = (lambda: Ledger(inside).rows(), lambda: saved_config(inside), lambda: qa.GPT.from_pretrained(inside))
    for use in uses:
        with suppress(QattnError):
            use()


def _as_toml(value: dict[str, Any]) -> str:
    lines = [f"{json.dumps(name)} = {json.dumps(item)}" for name, item in value.items() if item is not None]
    return "\n".join(lines)


_WORDS = st.one_of(_PIECES, _NAMES, st.sampled_from(["--backend", "--tokens", "--seed", "--out", "--json", "--help"]))
_COMMANDS = st.sampled_from(["generate", "estimate", "draw", "backends", "report", "jobs"])
#: What reads a string, with a folder for its files, and the strings.
KINDS: dict[str, tuple[Callable[[Any, Path], None], st.SearchStrategy[Any]]] = {
    "backends": (_backend, st.one_of(_BACKENDS, st.text())),
    "arguments": (_command, st.builds(lambda first, rest: [first, *rest], _COMMANDS, st.lists(_WORDS, max_size=4))),
    "TOML": (_toml, st.one_of(_SETTINGS.map(_as_toml), st.text())),
    "JSON": (_json, st.one_of(_SETTINGS, _VALUES)),
    "file names": (_file, _NAMES),
}


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
