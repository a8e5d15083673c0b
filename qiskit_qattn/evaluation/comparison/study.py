"""A comparison as frozen data: its kinds and seeds, its cells, and the settings and folder of each."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qiskit_qattn.evaluation.comparison.kinds import folder_name, joined_kinds
from qiskit_qattn.evaluation.comparison.matching import Size, kind_config
from qiskit_qattn.training.config import TrainConfig, resolve

#: Settings of a run that a comparison does not use; they keep the preset's values.
UNUSED = ("sample_prompt", "sample_tokens", "temperature", "top_k")


@dataclass(frozen=True, order=True)
class Cell:
    """One model of a comparison.

    Attributes:
        seed: Seed of the weights and the batches.
        kind: The kind of all its heads, or the mix that each layer has.
    """

    seed: int
    kind: str

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{folder_name(self.kind)}-s{self.seed}"


@dataclass(frozen=True)
class Study:
    """The plan of a comparison. A cell is a kind and a seed; cells of one seed see the same batches.

    Attributes:
        kinds: The kinds of head, the reference among them.
        seeds: The seeds of every kind.
        reference: The kind that the others are compared with.
        config: The settings of every cell; ``heads``, ``seed``, ``out`` and, where sizes are matched, ``n_inner`` are
            the cell's own.
        text: A hash of the text, so that every cell is trained on the same text; empty for models with data of their
            own.
        sizes: For each kind the size of its model, with the width of its MLP.
        build: The function of one's own that builds the models, as ``package.module:function``; empty for GPTs.
        first_kinds: The kinds before the study grew when some of its cells were done; empty if it did not.
        first_seeds: The seeds, likewise.
    """

    kinds: tuple[str, ...]
    seeds: tuple[int, ...]
    reference: str
    config: TrainConfig
    text: str
    sizes: dict[str, Size]
    build: str = ""
    first_kinds: tuple[str, ...] = ()
    first_seeds: tuple[int, ...] = ()

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.config.folder

    def cells(self) -> list[Cell]:
        """Return the cells, one seed after the other, so that pairs are complete early."""
        return [Cell(seed, kind) for seed in self.seeds for kind in self.kinds]

    @property
    def moves(self) -> bool:
        """Whether the circuits of models of one's own are moved; otherwise they stay where the function put them."""
        return self.config.backend != TrainConfig.backend

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
        found = self.config if self.build else kind_config(self.config, cell.kind, self.sizes[cell.kind].n_inner)
        return dataclasses.replace(found, seed=cell.seed, out=str(self.cell_folder(cell)))

    def command(self) -> str:
        """Return the command line of this study, with every setting that differs from the preset."""
        preset = resolve({}, preset=self.config.preset).to_dict()
        left_out = {"out", "baseline", "profile", "trackers", "preset", "heads", *UNUSED}
        settings = {name: value for name, value in self.config.to_dict().items() if name not in left_out}
        flags = {
            **({"build": self.build} if self.build else {}),
            "kinds": joined_kinds(self.kinds),
            "seeds": len(self.seeds),
            "reference": self.reference,
            "preset": self.config.preset,
            **{name: value for name, value in settings.items() if value != preset[name]},
            "out": self.folder,
        }
        words = [word for name, value in flags.items() for word in _flag(name, value)]
        matched = self.build or all(size.matched for size in self.sizes.values())
        return shlex.join(["qattn", "compare", *words, *([] if matched else ["--allow-unmatched"])])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the folder, so that it can be moved."""
        return {
            "kinds": list(self.kinds),
            "seeds": list(self.seeds),
            "reference": self.reference,
            "config": {name: value for name, value in self.config.to_dict().items() if name != "out"},
            "text": self.text,
            "sizes": {kind: size.to_dict() for kind, size in self.sizes.items()},
            **({"build": self.build} if self.build else {}),
            **({"first_kinds": list(self.first_kinds)} if self.first_kinds else {}),
            **({"first_seeds": list(self.first_seeds)} if self.first_seeds else {}),
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
