"""Cells in processes of their own: on this machine through joblib, on a cluster through Ray's joblib backend."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal

from qiskit_qattn.errors import missing_dependency
from qiskit_qattn.evaluation.comparison.cell import log_path
from qiskit_qattn.evaluation.comparison.plan import Cell, Study
from qiskit_qattn.evaluation.comparison.process import run_in_process

Cluster = Literal["none", "ray"]


def run_cells(study: Study, cells: Sequence[Cell], *, jobs: int = 0, cluster: Cluster = "none") -> dict[Cell, str]:
    """Run cells, several at a time, and return the reasons of those that failed.

    Args:
        study: The study; on a cluster every node must see its folder under the same path.
        cells: Which of its cells.
        jobs: How many at a time; 0: one a physical core, on a cluster one a CPU of the cluster.
        cluster: ``ray``: on the Ray cluster that ``RAY_ADDRESS`` names or this machine belongs to; without one, on a
            local Ray started for it.

    Raises:
        MissingDependencyError: If joblib or Ray is not installed.
    """
    if find_spec("joblib") is None:
        raise missing_dependency("joblib", "compare")
    import joblib

    if not cells:
        return {}
    with _backend(cluster):
        at_once = jobs or (-1 if cluster == "ray" else joblib.cpu_count(only_physical_cores=True))
        parallel = joblib.Parallel(n_jobs=at_once, batch_size=1, pre_dispatch="n_jobs")
        run = joblib.delayed(run_in_process)
        place, threads = str(study.folder), study.config.threads
        found = parallel(run(place, c.kind, c.seed, threads, str(log_path(study, c))) for c in cells)
    return {cell: reason for cell, reason in zip(cells, found, strict=True) if reason is not None}


@contextmanager
def _backend(cluster: Cluster) -> Iterator[None]:
    """Let joblib run on threads of this process, each of which waits for a process, or on Ray."""
    import joblib

    if cluster == "none":
        with joblib.parallel_config(backend="threading"):
            yield
        return
    if find_spec("ray") is None:
        raise missing_dependency("ray", "cluster")
    import ray
    from ray.util.joblib import register_ray

    # Ray's pool warns that it does not take joblib's choice of how to start processes.
    logging.getLogger("ray.util.multiprocessing.pool").setLevel(logging.ERROR)
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, configure_logging=False)
    try:
        register_ray()
        with joblib.parallel_config(backend="ray"):
            yield
    finally:
        if started:
            ray.shutdown()
