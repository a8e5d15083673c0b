"""The plan of a comparison: a frozen study, stored in its folder as ``study.json``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, TypedDict

from qiskit_qattn.backends.place import Place, settled
from qiskit_qattn.errors import CheckpointError, ConfigError, QattnError, RunFolderError
from qiskit_qattn.evaluation.comparison.builder import built_sizes, load_builder
from qiskit_qattn.evaluation.comparison.kinds import joined_kinds, parse_kinds
from qiskit_qattn.evaluation.comparison.matching import Size, check_matched, match_sizes, unmatched
from qiskit_qattn.evaluation.comparison.study import UNUSED, Study, any_heads, check_rates
from qiskit_qattn.evaluation.rendering import write_json
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.kinds import list_heads
from qiskit_qattn.training.config import MODEL_SETTINGS, TrainConfig, resolve
from qiskit_qattn.training.data import fingerprint, load_corpus
from qiskit_qattn.training.files import writing
from qiskit_qattn.untrusted import as_type, one_line, read_json, shown

NAME = "study.json"
FORMAT = "qiskit-qattn/study"
VERSION = 1
MOST_SEEDS = 10_000
ALL = "all"  # in place of kinds: every registered one


class _Later(TypedDict, total=False):
    build: str
    first_kinds: list[str]
    first_seeds: list[int]
    rates: list[float]
    left_out: dict[str, str]


class Record(_Later):
    """The content of ``study.json``."""

    kinds: list[str]
    seeds: list[int]
    reference: str
    config: dict[str, Any]
    text: str
    sizes: dict[str, dict[str, Any]]


def plan_study(
    config: TrainConfig,
    kinds: str,
    count: int,
    reference: str,
    *,
    allow_unmatched: bool = False,
    build: str = "",
    rates: Sequence[float] = (),
) -> Study:
    """Return the plan of a comparison: consecutive seeds, and models of equal size.

    Cells get one thread unless the settings say otherwise, so that results do not depend on how many run at a time.

    Args:
        config: The settings of every cell, with the first seed; its heads are ignored.
        kinds: The kinds, as for :func:`~qiskit_qattn.evaluation.comparison.kinds.split_kinds`; ``all`` stands for all
            registered ones, of which those that cannot be built or matched are left out, with the reasons.
        count: Number of seeds.
        reference: The kind that the others are compared with; it is added if ``kinds`` does not list it.
        allow_unmatched: Accept kinds that cannot be brought within 1 % of the reference's size.
        build: A user's function that builds the models, as ``package.module:function``. Its models are matched where
            it takes a width, and accepted in any case.
        rates: Peak learning rates to search for each kind, as :mod:`qiskit_qattn.evaluation.comparison.search` does.

    Raises:
        ConfigError: For kinds or seeds that make no comparison, for kinds that cannot be matched, and for a function
            that does not build models.
        BackendError: If the backend is not available.
    """
    every = kinds.strip() == ALL
    chosen, against = parse_kinds(joined_kinds(list_heads()) if every else kinds, reference, custom=bool(build))
    if not 1 <= count <= MOST_SEEDS:
        raise ConfigError(f"--seeds is {shown(count)}, but must be from 1 to {MOST_SEEDS:,}.")
    config.replace(seed=config.seed + count - 1)  # the last seed is checked as the first was
    check_rates(rates, config)
    seeds = tuple(range(config.seed, config.seed + count))
    preset = resolve({}, preset=config.preset)
    config = dataclasses.replace(config, **{name: getattr(preset, name) for name in UNUSED})
    config = dataclasses.replace(config, baseline=False, profile=False, trackers="none", threads=config.threads or 1)
    config = config.replace(heads=any_heads(config.model.n_head))
    backend = config.backend
    if os.path.isfile(config.folder / NAME):
        backend = settled(backend, load_study(config.folder).config.backend)
    place = Place.open(backend)  # an unavailable backend fails before any cell
    config = config.replace(backend=settled(backend, place.name))
    text = cache(partial(load_corpus, config.data, config.model.block_size, split=config.split))
    if build:
        builder = load_builder(build)
        if "config" not in builder.takes:
            _check_build_settings(config, preset)

    def sized(names: tuple[str, ...]) -> tuple[dict[str, Size], bool]:
        if build:
            return built_sizes(builder, names, against, config, text)
        return match_sizes(config, names, against, text().tokenizer.vocab_size), True

    left_out: dict[str, str] = {}
    if every:
        sizes, on_text, left_out = _sizes_of_all(chosen, sized, allow_unmatched)
    else:
        sizes, on_text = sized(chosen)
    if build and config.split and not on_text and "split" not in builder.takes:
        raise ConfigError(
            f"Split {config.split} of the data needs a function that takes split, but {build!r} does not."
        )
    if not build and not allow_unmatched:
        check_matched(sizes, against)
    digest = fingerprint(text()) if on_text else ""
    return Study(
        kinds=tuple(sizes),
        seeds=seeds,
        reference=against,
        config=config,
        text=digest,
        sizes=sizes,
        build=build,
        rates=tuple(sorted(rates)),
        left_out=left_out,
    )


def _sizes_of_all(
    kinds: tuple[str, ...], sized: Callable[[tuple[str, ...]], tuple[dict[str, Size], bool]], allow_unmatched: bool
) -> tuple[dict[str, Size], bool, dict[str, str]]:
    """Return the sizes of the kinds that can be built and matched, whether they learn the text, and why others cannot.

    Args:
        kinds: The kinds, the reference first; it must be among the former.
        sized: Returns the sizes of kinds, and whether their models learn the text.
        allow_unmatched: Accept kinds of another size.
    """
    reference = kinds[0]
    sizes, on_text = sized((reference,))
    left_out = {}
    for kind in kinds[1:]:
        try:
            found = sized((reference, kind))[0][kind]
        except QattnError as error:
            left_out[kind] = _reason(error)
            continue
        if found.matched or allow_unmatched:
            sizes[kind] = found
        else:
            left_out[kind] = f"not within 1% of the parameters of {reference}: {unmatched({kind: found})[0]}"
    if len(sizes) < 2:
        raise ConfigError(f"Of all kinds none can be compared with {reference}: {'; '.join(left_out.values())}.")
    return sizes, on_text, left_out


def _reason(error: QattnError) -> str:
    """Return why a kind cannot be compared: the first of errors that were raised from one another, in one line."""
    while isinstance(error.__cause__, QattnError):
        error = error.__cause__
    return one_line(str(error)).rstrip(".")


def _check_build_settings(config: TrainConfig, preset: TrainConfig) -> None:
    """Refuse settings of the model, which the build function decides instead.

    Raises:
        ConfigError: For such a setting that is not the preset's.
    """
    given, usual = config.to_dict(), preset.to_dict()
    names = [name for name in MODEL_SETTINGS if name not in ("heads", "block_size")]
    if wrong := [f"{name} = {shown(given[name])}" for name in names if given[name] != usual[name]]:
        raise ConfigError(f"With --build the function decides about the model, so it cannot have {', '.join(wrong)}.")


def open_study(study: Study) -> Study:
    """Write a study into its folder, or what it adds to the study that is there; return the study in the folder.

    Raises:
        RunFolderError, CheckpointError: As :func:`continued_study` does; the former also if it cannot be written.
    """
    grown = continued_study(study)
    if not os.path.isfile(study.folder / NAME) or load_study(study.folder) != grown:
        write_json(study.folder / NAME, {"format": FORMAT, "version": VERSION, **grown.to_dict()})
    return grown


def continued_study(study: Study) -> Study:
    """Return the study in the folder of ``study``, which grows by its kinds and seeds; itself if there is none.

    Raises:
        RunFolderError: If the folder contains a study that differs in more than kinds and seeds, or other files.
        CheckpointError: If the study in it is damaged.
    """
    folder = study.folder
    with writing(folder):
        if os.path.isfile(folder / NAME):
            return grown_study(load_study(folder), study)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunFolderError(f"{str(folder)!r} exists and contains no study; give another --out.")
    return study


def grown_study(there: Study, given: Study) -> Study:
    """Return a study with the kinds and seeds of another one of the same settings added.

    Raises:
        RunFolderError: If they differ in anything else, or their seeds are not consecutive together.
        ConfigError: If they have the same kind under two names.
    """
    old, new = _flat(there), _flat(given)
    changed = [f"{name} = {value}, not {new[name]}" for name, value in old.items() if value != new.get(name, value)]
    seeds = sorted({*there.seeds, *given.seeds})
    if len(seeds) != seeds[-1] - seeds[0] + 1:
        changed.append(f"seeds {there.seeds[0]} to {there.seeds[-1]}, which {given.seeds[0]} does not continue")
    if changed:
        raise RunFolderError(
            f"{str(given.folder)!r} contains another study, with {'; '.join(changed[:3])}. Give another --out, or "
            f"continue that study with: {there.command()}"
        )
    together = joined_kinds(list(dict.fromkeys((*there.kinds, *given.kinds))))
    kinds, _ = parse_kinds(together, there.reference, custom=bool(there.build))
    grown = dataclasses.replace(
        there,
        kinds=kinds,
        seeds=tuple(seeds),
        config=dataclasses.replace(there.config, seed=seeds[0]),
        sizes={**given.sizes, **there.sizes},
        left_out={kind: why for kind, why in given.left_out.items() if kind not in kinds},
    )
    begun = any(there.folder.glob("cells/*/cell.json"))
    if begun and not there.first_kinds and len(grown.cells()) > len(there.cells()):
        return dataclasses.replace(grown, first_kinds=there.kinds, first_seeds=there.seeds)
    return grown


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
        build = found.get("build", "")
        known, _ = parse_kinds(joined_kinds(kinds), found["reference"], custom=bool(build))  # kinds name folders
        if sorted(known) != sorted(kinds) or sorted(found["sizes"]) != sorted(kinds):
            raise ValueError("its reference, its kinds and its sizes do not fit together")
        heads = any_heads(settings.get("n_head", GPTConfig.n_head))
        config = TrainConfig.from_dict({**settings, "heads": heads, "out": str(folder)})
        sizes = {kind: Size.from_dict(size) for kind, size in found["sizes"].items()}
        return Study(
            kinds=tuple(kinds),
            seeds=tuple(found["seeds"]),
            reference=found["reference"],
            config=config,
            text=found["text"],
            sizes=sizes,
            build=build,
            first_kinds=tuple(found.get("first_kinds", ())),
            first_seeds=tuple(found.get("first_seeds", ())),
            rates=tuple(found.get("rates", ())),
            left_out=found.get("left_out", {}),
        )
    except FileNotFoundError as error:
        raise RunFolderError(f"{str(folder)!r} contains no study: it has no {NAME}.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The study {str(path)!r} is damaged: {str(error).rstrip('.')}.") from error


def _flat(study: Study) -> dict[str, Any]:
    """Return the parts of a plan that cannot change, named as on the command line where they are settings."""
    settings = {name: value for name, value in study.config.to_dict().items() if name not in ("out", "seed")}
    return {
        "build": study.build,
        "reference": study.reference,
        "learning_rates": study.rates,
        **settings,
        "text": study.text,
        **{f"n_inner of {kind}": size.n_inner for kind, size in study.sizes.items()},
        **{f"number of parameters of {kind}": size.total for kind, size in study.sizes.items()},
    }
