"""The profile of a run that was trained without one: some more steps from its newest checkpoint, then thrown away."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import CheckpointError, RunFolderError
from qiskit_qattn.evaluation.profile_report import profile_markdown, read_profile, render_profile
from qiskit_qattn.evaluation.rendering import code, machine, pairs, versions, write_json
from qiskit_qattn.training.checkpoint import list_checkpoints
from qiskit_qattn.training.data import load_corpus
from qiskit_qattn.training.files import write_text, writing
from qiskit_qattn.training.pace import steps_seconds
from qiskit_qattn.training.profiling import FOLDER
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.run import make_accelerator, saved_config
from qiskit_qattn.training.trainer import Trainer


def profile_run(
    run: Path, out: Path, *, steps: int, backend: Place | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Do some more steps of a run from its newest checkpoint, write their profile into ``out``, and return it.

    Nothing in the run's folder is changed. ``out`` gets what ``qattn train --profile`` writes, ``profile.json`` and
    ``profile.md``.

    Args:
        run: The run folder.
        out: The folder to make.
        steps: The number of steps.
        backend: The backend, opened; None opens the run's.
        progress: Receives the events of the steps.

    Raises:
        RunFolderError: If ``run`` is no run folder, or ``out`` exists or cannot be written.
        CheckpointError: If there is no checkpoint, or it is damaged.
        BackendError: If the backend fails.
    """
    config = saved_config(run)
    if out.exists():
        raise RunFolderError(f"The folder {str(out)!r} exists; give another --out.")
    checkpoint = newest_checkpoint(run)
    done = int(checkpoint.name.removeprefix("step-"))
    config = config.replace(profile=True, baseline=False, trackers="none", max_steps=done + steps)
    if config.threads:
        torch.set_num_threads(config.threads)
    progress = progress or Progress()
    timed = config if backend is None else config.replace(backend=backend.name)
    progress.forecast(partial(steps_seconds, timed, steps, backend))
    with tempfile.TemporaryDirectory(prefix="qattn-profile-") as name:
        scratch = Path(name)
        shutil.copytree(checkpoint, scratch / "checkpoints" / checkpoint.name)
        trainer = Trainer(
            config,
            load_corpus(config.data, config.model.block_size, split=config.split),
            scratch,
            accelerator=make_accelerator(config, scratch),
            backend=backend,
            progress=progress,
        )
        trainer.resume()
        progress.phase_started("profile", done, done + steps)
        trainer.do_steps(steps)
        profile = read_profile(scratch)
        assert profile is not None, "at least one step was traced"
        render_profile(scratch, profile)
        write_json(scratch / FOLDER / "profile.json", profile)
        title = f"# Profile of {code(str(run))}, steps {done + 1:,} to {done + steps:,}"
        about = pairs({**versions(), **machine(), "backend": backend.name if backend else config.backend})
        write_text(scratch / FOLDER / "profile.md", "\n\n".join([title, *profile_markdown(profile), about]) + "\n")
        with writing(out):
            shutil.copytree(scratch / FOLDER, out)
    return profile


def newest_checkpoint(run: Path) -> Path:
    """Return the newest checkpoint of a run.

    Raises:
        CheckpointError: If there is none.
    """
    found = list_checkpoints(run / "checkpoints")
    if not found:
        raise CheckpointError(f"The run in {str(run)!r} has no checkpoint to start from.")
    return found[-1]
