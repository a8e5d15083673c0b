"""The plan of a comparison: a frozen study, stored in its folder as ``study.json``."""

from __future__ import annotations

import dataclasses
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from qiskit_qattn.backends.place import Place, settled
from qiskit_qattn.errors import CheckpointError, ConfigError, RunFolderError
from qiskit_qattn.evaluation.comparison.matching import Size, check_matched, kind_config, match_sizes
from qiskit_qattn.evaluation.rendering import write_json
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.kinds import head_kind
from qiskit_qattn.training.config import TrainConfig, resolve
from qiskit_qattn.training.data import fingerprint, load_corpus
from qiskit_qattn.training.files import writing
from qiskit_qattn.untrusted import as_type, read_json, shown

NAME = "study.json"
FORMAT = "qiskit-qattn/study"
VERSION = 1
MOST_SEEDS = 10_000
#: Settings of a run that a comparison does not use; they keep the preset's values.
_UNUSED = ("sample_prompt", "sample_tokens", "temperature", "top_k")


class Record(TypedDict):
    """The content of ``study.json``."""

    kinds: list[str]
    seeds: list[int]
    reference: str
    config: dict[str, Any]
    text: str
    sizes: dict[str, dict[str, Any]]


@dataclass(frozen=True, order=True)
class Cell:
    """One model of a comparison: all of its heads are of one kind.

    Attributes:
        seed: Seed of the weights and the batches.
        kind: The kind of head.
    """

    seed: int
    kind: str

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.kind}-s{self.seed}"


@dataclass(frozen=True)
class Study:
    """The plan of a comparison. A cell is a kind and a seed; cells of one seed see the same batches.

    Attributes:
        kinds: The kinds of head, the reference among them.
        seeds: The seeds of every kind.
        reference: The kind that the others are compared with.
        config: The settings of every cell; ``heads``, ``seed``, ``out`` and, where sizes are matched, ``n_inner`` are
            the cell's own.
        text: A hash of the text, so that every cell is trained on the same text.
        sizes: For each kind the size of its model, with the width of its MLP.
    """

    kinds: tuple[str, ...]
    seeds: tuple[int, ...]
    reference: str
    config: TrainConfig
    text: str
    sizes: dict[str, Size]

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.config.folder

    def cells(self) -> list[Cell]:
        """Return the cells, one seed after the other, so that pairs are complete early."""
        return [Cell(seed, kind) for seed in self.seeds for kind in self.kinds]

    @property
    def num_circuit_cells(self) -> int:
        """The number of cells that evaluate circuits, and so share a device's budget; at least 1."""
        return max(1, len(self.seeds) * sum(size.num_qubits > 0 for size in self.sizes.values()))

    def cell_folder(self, cell: Cell) -> Path:
        """Return the run folder of a cell."""
        return self.folder / "cells" / cell.name

    def side_file(self, cell: Cell, suffix: str) -> Path:
        """Return a file beside a cell's folder, such as its log."""
        return self.cell_folder(cell).with_name(f".{cell.name}.{suffix}")

    def cell_config(self, cell: Cell) -> TrainConfig:
        """Return the settings of a cell's run."""
        found = kind_config(self.config, cell.kind, self.sizes[cell.kind].n_inner)
        return dataclasses.replace(found, seed=cell.seed, out=str(self.cell_folder(cell)))

    def command(self) -> str:
        """Return the command line of this study, with every setting that differs from the preset."""
        preset = resolve({}, preset=self.config.preset).to_dict()
        own = {"out", "baseline", "profile", "trackers", "preset", "heads", *_UNUSED}
        settings = {name: value for name, value in self.config.to_dict().items() if name not in own}
        flags = {
            "kinds": ",".join(self.kinds),
            "seeds": len(self.seeds),
            "reference": self.reference,
            "preset": self.config.preset,
            **{name: value for name, value in settings.items() if value != preset[name]},
            "out": self.folder,
        }
        words = [word for name, value in flags.items() for word in _flag(name, value)]
        unmatched = [] if all(size.matched for size in self.sizes.values()) else ["--allow-unmatched"]
        return shlex.join(["qattn", "compare", *words, *unmatched])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the folder, so that it can be moved."""
        config = {name: value for name, value in self.config.to_dict().items() if name != "out"}
        sizes = {kind: size.to_dict() for kind, size in self.sizes.items()}
        return {
            "kinds": list(self.kinds),
            "seeds": list(self.seeds),
            "reference": self.reference,
            "config": config,
            "text": self.text,
            "sizes": sizes,
        }


def any_heads(n_head: int) -> str:
    """Return the heads of a study's own settings, which every cell replaces by those of its kind."""
    return f"classical:{n_head}"


def _flag(name: str, value: Any) -> list[str]:
    """Return a setting as the words of a command line."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", str(value)]


def parse_kinds(text: str, reference: str) -> tuple[tuple[str, ...], str]:
    """Return the kinds of a comma-separated list, the reference first, and the reference; all under the names given.

    Raises:
        UnknownNameError: For an unknown kind.
        ConfigError: For a kind named twice, or no kind besides the reference.
    """
    named: dict[str, str] = {}
    names = [name for name in map(str.strip, text.split(",")) if name]
    for name in names:
        if (same := named.setdefault(head_kind(name).name, name)) != name or names.count(name) > 1:
            raise ConfigError(f"--kinds {text!r} names one kind twice: {same} and {name}.")
    chosen = named.pop(head_kind(reference.strip()).name, reference.strip())
    if not named:
        raise ConfigError(f"--kinds {text!r} names no kind to compare with the reference {chosen}.")
    return (chosen, *named.values()), chosen


def plan_study(config: TrainConfig, kinds: str, count: int, reference: str, *, allow_unmatched: bool = False) -> Study:
    """Return the plan of a comparison: consecutive seeds, and models of equal size.

    Cells get one thread unless the settings say otherwise, so that results do not depend on how many run at a time.

    Args:
        config: The settings of every cell, with the first seed; its heads are ignored.
        kinds: Kinds of head, separated by commas.
        count: Number of seeds.
        reference: The kind that the others are compared with; it is added if ``kinds`` does not list it.
        allow_unmatched: Accept kinds that cannot be brought within 1 % of the reference's size.

    Raises:
        ConfigError: For kinds or seeds that make no comparison, and for kinds that cannot be matched.
        BackendError: If the backend is not available.
    """
    chosen, against = parse_kinds(kinds, reference)
    if not 1 <= count <= MOST_SEEDS:
        raise ConfigError(f"--seeds is {shown(count)}, but must be from 1 to {MOST_SEEDS:,}.")
    config.replace(seed=config.seed + count - 1)  # the last seed is checked as the first was
    seeds = tuple(range(config.seed, config.seed + count))
    preset = resolve({}, preset=config.preset)
    config = dataclasses.replace(config, **{name: getattr(preset, name) for name in _UNUSED})
    config = dataclasses.replace(config, baseline=False, profile=False, trackers="none", threads=config.threads or 1)
    config = config.replace(heads=any_heads(config.model.n_head))
    backend = config.backend
    if os.path.isfile(config.folder / NAME):
        backend = settled(backend, load_study(config.folder).config.backend)
    place = Place.open(backend)  # an unavailable backend fails before any cell
    config = config.replace(backend=settled(backend, place.name))
    corpus = load_corpus(config.data, config.model.block_size)
    sizes = match_sizes(config, chosen, against, corpus.tokenizer.vocab_size)
    if not allow_unmatched:
        check_matched(sizes, against)
    return Study(chosen, seeds, against, config, fingerprint(corpus), sizes)


def open_study(study: Study) -> bool:
    """Write a study into its folder, unless it is there already; return whether it was.

    Raises:
        RunFolderError: If the folder contains another study or other files, or cannot be written.
        CheckpointError: If the study in it is damaged.
    """
    folder = study.folder
    with writing(folder):
        if os.path.isfile(folder / NAME):
            _check_same(load_study(folder), study)
            return True
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunFolderError(f"{str(folder)!r} exists and contains no study; give another --out.")
    write_json(folder / NAME, {"format": FORMAT, "version": VERSION, **study.to_dict()})
    return False


def load_study(folder: Path) -> Study:
    """Return the study in ``folder``.

    Raises:
        RunFolderError: If there is none.
        CheckpointError: If it is damaged, or of another program or version.
    """
    path = folder / NAME
    try:
        record = read_json(path)
        if not isinstance(record, dict) or record.pop("format", None) != FORMAT:
            raise CheckpointError(f"{str(path)!r} is not a study of qiskit-qattn.")
        if record.pop("version", None) != VERSION:
            raise CheckpointError(f"{str(path)!r} was written by another version of qiskit-qattn.")
        found: Record = as_type(record, Record)
        settings, kinds = found["config"], found["kinds"]
        if found["reference"] not in kinds or sorted(found["sizes"]) != sorted(kinds):
            raise ValueError("its reference, its kinds and its sizes do not fit together")
        heads = any_heads(settings.get("n_head", GPTConfig.n_head))
        config = TrainConfig.from_dict({**settings, "heads": heads, "out": str(folder)})
        sizes = {kind: Size.from_dict(size) for kind, size in found["sizes"].items()}
        return Study(tuple(kinds), tuple(found["seeds"]), found["reference"], config, found["text"], sizes)
    except FileNotFoundError as error:
        raise RunFolderError(f"{str(folder)!r} contains no study: it has no {NAME}.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The study {str(path)!r} is damaged: {str(error).rstrip('.')}.") from error


def _check_same(there: Study, given: Study) -> None:
    """Raise if two plans differ, naming the first differences."""
    old, new = _flat(there), _flat(given)
    changed = [f"{name} = {value}, not {new.get(name)}" for name, value in old.items() if value != new.get(name)]
    if changed:
        raise RunFolderError(
            f"{str(given.folder)!r} contains another study, with {'; '.join(changed[:3])}. Give another --out, or "
            f"continue that study with: {there.command()}"
        )


def _flat(study: Study) -> dict[str, Any]:
    """Return the parts of a plan, named as on the command line where they are settings."""
    return {
        "kinds": ",".join(study.kinds),
        "seeds": ",".join(map(str, study.seeds)),
        "reference": study.reference,
        **study.config.to_dict(),
        "out": "",
        "text": study.text,
        **{f"n_inner of {kind}": size.n_inner for kind, size in study.sizes.items()},
    }
