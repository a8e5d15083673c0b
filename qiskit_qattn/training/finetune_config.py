"""The settings of a fine-tuning: a pretrained model, a task, and the methods and seeds that are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from qiskit_qattn.errors import CheckpointError, ConfigError, RunFolderError, unknown_name
from qiskit_qattn.hf.adapters import AdapterKind
from qiskit_qattn.training.config import Device, bounded, check_settings, read_toml, toml_text
from qiskit_qattn.untrusted import shown

#: Adapters of :func:`~qiskit_qattn.hf.adapters.add_adapters`, all weights, and the new classifier alone.
METHODS = (*get_args(AdapterKind), "full", "probe")
#: Settings that may change when a folder is continued: they affect no result of a method with a seed.
_MAY_CHANGE = ("methods", "seeds", "reference", "device", "threads", "checkpoint_interval", "save_models", "out")
_FULL_RATE, _RATE = 5e-5, 1e-3


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """All settings of a fine-tuning; ``qattn finetune --help`` describes each of them.

    Raises:
        ConfigError: If a value has the wrong type or is out of bounds, or two values exclude each other.
        UnknownNameError: For an unknown method, or a reference that is none of the methods.
    """

    model: str = "minilm"
    task: str = ""
    dev: str = ""
    methods: str = "qisa"
    seeds: int = bounded(1, least=1, most=1000)
    seed: int = bounded(0, least=0, most=2**32 - 1001)
    reference: str = ""
    adapter: str = ""
    out: str = ""
    backend: str = "statevector"
    device: Device = "auto"
    threads: int = bounded(0, least=0, most=1024)

    num_qubits: int = bounded(4, least=1, most=16)
    reps: int = bounded(0, least=0)
    target_modules: str = ""

    epochs: float = bounded(3.0, least=0, most=1e6)
    batch_size: int = bounded(32, least=1, most=2**16)
    learning_rate: float = bounded(0.0, least=0)
    warmup: float = bounded(0.1, least=0, below=1)
    weight_decay: float = bounded(0.0, least=0)
    max_length: int = bounded(128, least=4, most=2**20)
    train_rows: int = bounded(0, least=0)
    dev_rows: int = bounded(0, least=0)
    checkpoint_interval: int = bounded(100, least=1)
    save_models: bool = True

    def __post_init__(self) -> None:
        """Check types, bounds and names."""
        check_settings(self, [item.name for item in fields(self)])
        if not self.task:
            raise ConfigError("A fine-tuning needs a task: the name of one, or the path of a TSV, CSV or Parquet file.")
        names = self.method_names
        if not names:
            raise ConfigError(f"methods is empty; name some of {', '.join(METHODS)}, separated by commas.")
        for name in names:
            if name not in METHODS:
                raise unknown_name("method", name, METHODS)
        if self.reference and self.reference not in names:
            raise unknown_name("reference", self.reference, names)
        if self.adapter and len(names) > 1:
            raise ConfigError(f"Saved adapters are those of one method, but {len(names)} are given: {self.methods}.")
        if self.adapter and names[0] in ("full", "probe"):
            raise ConfigError(f"The method {names[0]!r} has no adapters, so none can be loaded.")

    @property
    def method_names(self) -> tuple[str, ...]:
        """The methods, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.methods.split(",") if name.strip()))

    @property
    def compared_with(self) -> str:
        """The method that the others are compared with: the given one, else ``lora`` if it is there, else the first."""
        return self.reference or ("lora" if "lora" in self.method_names else self.method_names[0])

    @property
    def seed_numbers(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return Path(self.out or "runs/finetune")

    def rate(self, method: str) -> float:
        """Return the peak learning rate of a method."""
        return self.learning_rate or (_FULL_RATE if method == "full" else _RATE)

    def cell_folder(self, method: str, seed: int) -> Path:
        """Return the folder of a method with a seed."""
        return self.folder / method / f"seed-{seed}"

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain values."""
        return asdict(self)

    def to_toml(self) -> str:
        """Return the settings as TOML that ``--config`` can read; the folder is left out."""
        return toml_text({name: value for name, value in self.to_dict().items() if name != "out"})


def resolve_finetune(given: Mapping[str, Any], config_file: str | Path | None = None) -> FinetuneConfig:
    """Return the settings of a TOML file with those that are given over them.

    If the folder has results, the methods and seeds that it has are kept, and others are added.

    Raises:
        ConfigError: If a file cannot be read, or a setting differs from that of the folder's results.
        RunFolderError: If the folder holds something else.
        UnknownNameError: For an unknown setting.
    """
    from_file = read_toml(config_file, _names()) if config_file is not None else {}
    settings = {**from_file, **given}
    out = settings.get("out", "")
    folder = Path((isinstance(out, str) and out) or "runs/finetune")  # another type is refused below
    if not folder.exists():
        return FinetuneConfig(**settings)
    saved_file = folder / "config.toml"
    if not saved_file.is_file():
        if folder.is_dir() and not any(folder.iterdir()):
            return FinetuneConfig(**settings)
        raise RunFolderError(f"{str(folder)!r} exists and holds no results of qattn finetune; choose another --out.")
    try:
        saved = FinetuneConfig(**{**read_toml(saved_file, _names()), "out": str(folder)})
    except ConfigError as error:
        raise CheckpointError(f"The settings in {str(saved_file)!r} are damaged: {error}") from error
    config = FinetuneConfig(**{**saved.to_dict(), **settings, "out": str(folder)})
    for item in fields(config):
        old, new = getattr(saved, item.name), getattr(config, item.name)
        if item.name not in _MAY_CHANGE and old != new:
            raise ConfigError(
                f"The results in {str(folder)!r} are with {item.name} = {shown(old)}, not {shown(new)}; choose another"
                f" --out. A folder can be continued with other {', '.join(_MAY_CHANGE[:3])}."
            )
    methods = ",".join(dict.fromkeys((*saved.method_names, *config.method_names)))
    merged = {"methods": methods, "seeds": max(saved.seeds, config.seeds)}
    return FinetuneConfig(**{**config.to_dict(), **merged})


def _names() -> list[str]:
    return [item.name for item in fields(FinetuneConfig)]
