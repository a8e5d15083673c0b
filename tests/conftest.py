"""Fixtures for all tests: seeds, one thread, and no file outside the test's own folder."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

# Before anything imports what reads them.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch

from qiskit_qattn.backends.registry import GROUP

SEED = 20240117
VERSE = "the king and queen shall speak to thee good sir what is this night love death come hither"

# A provider of a laboratory whose runs fail as told, installed as a package would be.
LABORATORY = '''
from qiskit.primitives import StatevectorEstimator
from qiskit_qattn import errors
from qiskit_qattn.backends.registry import Backend, Provider

class Device:
    """Opens a session with its first run, and again after it was closed; counts those it closed."""
    closed, open = 0, True
    def close(self):
        self.closed, self.open = self.closed + self.open, False

class Lab(StatevectorEstimator):
    """Fails in the runs that the option names, counted over all heads."""
    def __init__(self, spec):
        super().__init__()
        self.fails, self.runs, self.device = spec.options.get("fails", ""), 0, Device()
        self.error = getattr(errors, spec.options.get("error", "BackendError"), None) or RuntimeError

    def run(self, pubs, *, precision=None):
        self.runs, self.device.open = self.runs + 1, True
        if self.fails == "all" or str(self.runs) in self.fails.split("+"):
            raise self.error("The laboratory\\nis closed.")
        return super().run(pubs, precision=precision)

def build(spec):
    if (spec.target or "").startswith("gone"):
        raise errors.TransientBackendError("The laboratory cannot be reached.")
    return Backend(str(spec), Lab(spec))

PROVIDER = Provider("A laboratory", build, {"fails": "runs", "error": "their error"}, targets="gone")
'''

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # the kernels of simulation/gpu run in Triton's interpreter

torch.set_num_threads(1)  # the tensors of tests are small: threads would only wait for each other


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a random generator that starts from the same seed in each test."""
    return np.random.default_rng(SEED)


@pytest.fixture(autouse=True)
def torch_seed() -> int:
    """Seed every global random state before each test, and return the seed."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    return SEED


@pytest.fixture(autouse=True)
def no_user_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's cache and data folders out of each test, and return the empty cache folder in their place."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("QATTN_CACHE_DIR", str(folder))
    monkeypatch.setenv("QATTN_LEDGER", str(folder / "ledger.sqlite"))
    monkeypatch.delenv("QATTN_DATA_DIR", raising=False)
    return folder


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a little made-up verse."""
    draw, words = random.Random(1), VERSE.split()
    path = tmp_path_factory.mktemp("text") / "verse.txt"
    path.write_text("\n".join(" ".join(draw.choice(words) for _ in range(7)) for _ in range(200)))
    return path


@pytest.fixture(scope="session")
def finished_run(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run with its baseline."""
    from qiskit_qattn.training.config import resolve
    from qiskit_qattn.training.run import train_run

    config = resolve(
        {
            "data": str(text_file),
            "out": str(tmp_path_factory.mktemp("runs") / "run"),
            "baseline": True,
            "profile": True,
            "n_layer": 1,
            "n_head": 2,
            "n_embd": 16,
            "block_size": 8,
            "heads": "qisa:1,classical:1",
            "num_qubits": 3,
            "batch_size": 4,
            "max_steps": 12,
            "warmup_steps": 2,
            "log_interval": 1,
            "eval_interval": 5,
            "eval_batches": 2,
            "sample_tokens": 40,
            "trackers": "none",
            "device": "cpu",
        }
    )
    train_run(config)
    return config.folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny BERT with random weights, and a tokenizer of a few words."""
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "film", "was"]
    words += ["good", "bad", "fine", "awful", "very", "not", "plot"]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = BertModel(
            BertConfig(
                vocab_size=len(words),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=48,
                max_position_embeddings=32,
            )
        )
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    model.save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a TSV file of made-up sentences, each with one word that gives its label away."""
    draw = random.Random(2)
    lines = ["sentence\tlabel"]
    for i in range(80):
        word = draw.choice(["good", "fine"] if i % 2 else ["bad", "awful"])
        lines.append(f"{draw.choice(['the', 'a'])} {draw.choice(['film', 'plot'])} was {word}\t{i % 2}")
    path = tmp_path_factory.mktemp("reviews") / "reviews.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def own_kinds() -> Iterator[None]:
    """Take kinds of heads and circuits that a test registers out again."""
    from qiskit_qattn.library.catalog import CATALOG
    from qiskit_qattn.nn import kinds

    before, circuits = dict(kinds._KINDS), dict(CATALOG)
    yield
    for registry, kept in ((kinds._KINDS, before), (CATALOG, circuits)):
        registry.clear()
        registry.update(kept)
    kinds._installed.cache_clear()


@pytest.fixture
def install_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str, str, Mapping[str, str]], None]]:
    """Yield a function that installs a package of one module, with backends as entry points, for the test."""
    modules = []

    def install(package: str, module: str, source: str, backends: Mapping[str, str]) -> None:
        modules.append(module)
        folder = tmp_path / package
        info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source, "utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in backends.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
        monkeypatch.syspath_prepend(str(folder))

    yield install
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def laboratory(install_package) -> None:
    """Install a package with the provider ``lab``, whose option ``fails`` names the runs that fail, or all."""
    install_package("qattn-lab-nn", "qattn_lab_nn", LABORATORY, {"lab": "qattn_lab_nn:PROVIDER"})
