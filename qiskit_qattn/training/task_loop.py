"""Training of a user's own model on its data."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from qiskit_machine_learning.connectors import TorchConnector as QiskitTorchConnector
from torch import Tensor, nn

from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.inference import evaluating
from qiskit_qattn.nn.placement import Movable, audit
from qiskit_qattn.training.audits import join_audits, read_audit, write_audit
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.files import new_folder, write_bytes
from qiskit_qattn.training.loop import TrainingLoop
from qiskit_qattn.training.metrics import finite, training_figures
from qiskit_qattn.training.progress import InterruptGuard, Progress
from qiskit_qattn.training.run import make_accelerator
from qiskit_qattn.training.task import Task, collated, data_hash, derived_seed, drawn
from qiskit_qattn.training.validation import Losses

if TYPE_CHECKING:
    from accelerate import Accelerator

WEIGHTS = "weights.pt"


def circuit_modules(model: nn.Module) -> list[QuantumHead | QiskitTorchConnector]:
    """Return the modules of a model that evaluate circuits."""
    return [part for part in model.modules() if isinstance(part, QuantumHead | QiskitTorchConnector)]


def circuit_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the angles of a model's circuits, those that several circuits share once."""
    found = [cast(nn.Parameter, part.weight) for part in circuit_modules(model)]
    return list({id(weight): weight for weight in found}.values())


def num_qubits(part: QuantumHead | QiskitTorchConnector) -> int:
    """Return the number of qubits of a module's circuit; at least 1 for a network that does not say."""
    circuit = part.circuit if isinstance(part, QuantumHead) else getattr(part.neural_network, "circuit", None)
    return max(1, getattr(circuit, "num_qubits", 1))


class TaskLoop(TrainingLoop):
    """Trains the model of a task.

    Args:
        config: The settings of the optimizer and the loop, with the seed of the batches.
        task: The model and its data.
        folder: The folder of ``checkpoints`` and ``model``.
        accelerator: Hugging Face Accelerate's handle on devices and precision.
        progress: Receives the events of the training.
    """

    def __init__(
        self, config: TrainConfig, task: Task, folder: Path, *, accelerator: Accelerator, progress: Progress | None
    ) -> None:
        self.task = task
        self.batch_items = config.batch_size
        self._metrics: dict[str, float | None] = {}
        if isinstance(task.loss, nn.Module):
            task.loss.to(accelerator.device)  # the weights of its classes
        super().__init__(
            config,
            task.model,
            circuit_weights(task.model),
            folder,
            accelerator=accelerator,
            name="model",
            progress=progress,
            data=data_hash(task, config),
        )

    def batch_loss(self) -> Tensor:
        """Return the loss of the next batch."""
        config = self.config
        batch = drawn(self.task, self.task.train, config.seed, self.state.step, config.batch_size)
        return self.task(self.model, self._on_device(batch))[2]

    def fixed_losses(self) -> Losses:
        """Return the loss over the first batches of the validation data in a random order."""
        return self._evaluate(self._fixed(self.task.validation))

    def final_losses(self, stop: InterruptGuard) -> tuple[Losses, Losses]:
        """Return the loss on fixed training batches and on all validation data; the metrics are those of the latter."""
        train = self.checked(lambda: self._evaluate(self._fixed(self.task.train)))
        data, size = self.task.validation, self.config.batch_size
        parts = [list(range(start, min(start + size, len(data)))) for start in range(0, len(data), size)]
        batches = ((len(part), collated(self.task, data, part, derived_seed(0, part[0]))) for part in parts)
        val = self.checked(lambda: self._evaluate(self.watched(batches, len(parts), stop)))
        return train, val

    def _fixed(self, data: Any) -> Iterator[tuple[int, Any]]:
        size = min(self.config.batch_size, len(data))
        for step in range(min(self.config.eval_batches, -(-len(data) // size))):
            yield size, drawn(self.task, data, self.config.seed + 1, step, size)

    def _on_device(self, batch: Any) -> Any:
        from accelerate.utils import send_to_device

        return send_to_device(batch, self.accelerator.device)

    @torch.no_grad()
    def _evaluate(self, batches: Iterable[tuple[int, Any]]) -> Losses:
        """Return the mean loss over batches with their numbers of items, and keep the means of the metrics."""
        model = self.task.model
        sums, items = dict.fromkeys(["", *self.task.metrics], 0.0), 0
        with evaluating(model), self.accelerator.autocast():
            for count, batch in batches:
                output, target, loss = self.task(model, self._on_device(batch))
                values = self.task.measured(output, target)
                for name, value in {"": float(loss), **values}.items():
                    sums[name] += count * value
                items += count
        means = {name: total / items for name, total in sums.items()}
        loss_mean = means.pop("")
        self._metrics = {name: finite(mean) for name, mean in means.items()}
        return Losses(loss_mean, None)

    def save_weights(self, folder: Path) -> None:
        """Write the model's ``state_dict`` into a new folder."""
        buffer = io.BytesIO()
        torch.save(self.task.model.state_dict(), buffer)
        with new_folder(folder) as scratch:
            write_bytes(scratch / WEIGHTS, buffer.getvalue())

    def load_weights(self, folder: Path) -> None:
        """Load what :meth:`save_weights` wrote."""
        loaded = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
        self.task.model.load_state_dict(loaded)

    def described_data(self) -> str:
        """Return what the data are called, in words."""
        return "The data set of the model"

    def figures(self, train: Losses, val: Losses) -> dict[str, Any]:
        """Return the figures of the model."""
        total = sum(weight.numel() for weight in self.task.model.parameters())
        quantum = sum(weight.numel() for weight in circuit_weights(self.task.model))
        return {
            **training_figures(self.state, train, val),
            "parameters": {"quantum": quantum, "classical": total - quantum, "total": total},
            "metrics": self._metrics,
            "data": self._data,
            "head_backends": [],
        }


def train_task(config: TrainConfig, task: Task, folder: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train the model of a task, or continue from its last checkpoint, and return its figures.

    Args:
        config: The settings of the optimizer and the loop; those of the GPT are not used.
        task: The model and its data.
        folder: Gets ``checkpoints`` and ``model/weights.pt``, the ``state_dict``; on a chain of backends also
            ``audit.json``.
        progress: Receives the events of the training.

    Raises:
        CheckpointError: If the last checkpoint is damaged, or of another model.
        ConfigError: If training diverges, or the checkpoint is of other data.
        RunFolderError: If the folder cannot be written.
        TrainingInterrupted: If SIGINT or SIGTERM came; the state has been saved.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = make_accelerator(config, folder)
    loop = TaskLoop(config, task, folder, accelerator=accelerator, progress=progress)
    loop.resume()
    start = loop.state.step
    before = read_audit(folder, start) if start else {}
    try:
        figures = loop.train()
    finally:
        moved = any(isinstance(part, Movable) for part in task.model.modules())
        found = join_audits(before, audit(task.model) if moved else {}, start, loop.state.step)
        write_audit(folder, found)
    return {**figures, "audit": found}
