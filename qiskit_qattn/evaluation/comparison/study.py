"""A comparison as frozen data: its kinds and seeds, its cells, and the settings and folder of each."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.comparison.kinds import folder_name, joined_kinds
from qiskit_qattn.evaluation.comparison.matching import Size, kind_config
from qiskit_qattn.training.config import TrainConfig, resolve

TRIAL_SEEDS = (4_000_000_000, 4_000_000_001)  # apart from those of cells
#: Settings of a run that a comparison does not use; they keep the preset's values.
UNUSED = ("sample_prompt", "sample_tokens", "temperature", "top_k")


@dataclass(frozen=True, order=True)
class Cell:
    """One model of a comparison.

    Attributes:
        seed: Seed of the weights and the batches.
        kind: The kind of all its heads, or the mix that each layer has.
        rate: The learning rate that a trial tries; 0 for a cell that is reported.
    """

    seed: int
    kind: str
    rate: float = 0.0

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{folder_name(self.kind)}-s{self.seed}" + (f"-lr{self.rate:g}" if self.rate else "")


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
        build: The user's function that builds the models, as ``package.module:function``; empty for GPTs.
        first_kinds: The kinds before the study grew when some of its cells were done; empty if it did not.
        first_seeds: The seeds, likewise.
        rates: The peak learning rates among which one is searched for each kind; empty: the settings' rate for all.
        left_out: Kinds that ``all`` names but that cannot be compared, with the reasons.
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
    rates: tuple[float, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.config.folder

    def cells(self) -> list[Cell]:
        """Return the cells, one seed after the other, so that pairs are complete early."""
        return [Cell(seed, kind) for seed in self.seeds for kind in self.kinds]

    def trials(self) -> list[Cell]:
        """Return the trials of the search for learning rates; none where no rate is searched."""
        return [Cell(seed, kind, rate) for seed in TRIAL_SEEDS for rate in self.rates for kind in self.kinds]

    @property
    def moves(self) -> bool:
        """Whether the circuits of custom models are moved to the backend, and not left where the function put them."""
        return self.config.backend != TrainConfig.backend

    @property
    def num_circuit_cells(self) -> int:
        """The number of cells and trials that evaluate circuits, and so share a device's budget; at least 1."""
        each = len(self.seeds) + len(TRIAL_SEEDS) * len(self.rates)
        return max(1, each * sum(size.num_qubits > 0 for size in self.sizes.values()))

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

    def command(self, **more: Any) -> str:
        """Return the command line of this study, with every setting that differs from the preset.

        Args:
            more: Options in place of its own; None leaves one out.
        """
        preset = resolve({}, preset=self.config.preset).to_dict()
        left_out = {"out", "baseline", "profile", "trackers", "preset", "heads", *UNUSED}
        settings = {name: value for name, value in self.config.to_dict().items() if name not in left_out}
        flags = {
            **({"build": self.build} if self.build else {}),
            "kinds": joined_kinds(more.pop("kinds", self.kinds)),
            "seeds": len(self.seeds),
            "reference": self.reference,
            **({"learning_rates": ",".join(f"{rate:g}" for rate in self.rates)} if self.rates else {}),
            "preset": self.config.preset,
            **{name: value for name, value in settings.items() if value != preset[name]},
            "out": self.folder,
            **more,
        }
        words = [word for name, value in flags.items() if value is not None for word in _flag(name, value)]
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
            **({"rates": list(self.rates)} if self.rates else {}),
            **({"left_out": self.left_out} if self.left_out else {}),
        }


def check_rates(rates: Sequence[float], config: TrainConfig) -> None:
    """Refuse learning rates that cannot be searched.

    Raises:
        ConfigError: For a rate that is not a positive number, is given twice or alone, or a study that has none itself.
    """
    listed = ", ".join(f"{rate:g}" for rate in rates)
    if rates and (len(set(rates)) < max(2, len(rates)) or not all(0 < rate < math.inf for rate in rates)):
        raise ConfigError(f"--learning-rates {listed} must be at least two different positive numbers.")
    if rates and not config.learning_rate:
        raise ConfigError("--learning-rates scale min_lr and circuit_lr with learning_rate, which must not be 0.")


def any_heads(n_head: int) -> str:
    """Return the heads of a study's own settings, which every cell replaces by those of its kind."""
    return f"classical:{n_head}"


def _flag(name: str, value: Any) -> list[str]:
    """Return a setting as the words of a command line."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", str(value)]
