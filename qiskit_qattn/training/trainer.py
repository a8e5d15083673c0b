"""The training of a GPT on a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training import checkpoint
from qiskit_qattn.training.acceleration import to_device
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.data import Corpus, fingerprint, random_batch
from qiskit_qattn.training.loop import TrainingLoop
from qiskit_qattn.training.metrics import run_figures
from qiskit_qattn.training.progress import InterruptGuard, Progress
from qiskit_qattn.training.validation import Batch, Losses, evaluate, final_batches, fixed_batches

if TYPE_CHECKING:
    from accelerate import Accelerator

    from qiskit_qattn.backends.place import Place


class Trainer(TrainingLoop):
    """Trains one GPT on one corpus.

    The same seed gives the same weights and the same batches, whatever the heads.

    Args:
        config: The run's settings.
        corpus: Tokens to train and validate on.
        folder: The folder of ``checkpoints``, ``model`` and the figures.
        accelerator: Hugging Face Accelerate's handle on devices, precision and processes.
        name: The model's name in progress and trackers.
        progress: Receives the events of the training.
        backend: The configured backend, opened; None opens it.
        model_class: The class of the model; a subclass with the same weights.
    """

    def __init__(
        self,
        config: TrainConfig,
        corpus: Corpus,
        folder: Path,
        *,
        accelerator: Accelerator,
        name: str = "model",
        progress: Progress | None = None,
        backend: Place | None = None,
        model_class: type[GPT] = GPT,
    ) -> None:
        from accelerate.utils import set_seed

        set_seed(config.seed)
        self.raw_model = model_class(dataclasses.replace(config.model, vocab_size=corpus.tokenizer.vocab_size))
        self.raw_model.to_backend(config.backend if backend is None else backend)
        self.corpus = corpus
        self.batch_items = config.batch_size * config.model.block_size
        super().__init__(
            config,
            self.raw_model,
            self.raw_model.circuit_parameters(),
            folder,
            accelerator=accelerator,
            name=name,
            progress=progress,
            data=fingerprint(corpus),
        )

    def batch_loss(self) -> torch.Tensor:
        """Return the loss of this process's share of the next random windows."""
        config = self.config
        x, y = random_batch(self.corpus.train, config.batch_size, config.model.block_size, self.generator)  # (B, T)
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        x, y = (to_device(each[share], self.accelerator.device) for each in (x, y))  # (B / processes, T)
        _, loss = self.model(x, y)
        return loss

    def fixed_losses(self) -> Losses:
        """Return the losses over fixed random windows of the validation split."""
        return self._evaluate(fixed_batches(self.corpus.val, self.config))

    def final_losses(self, stop: InterruptGuard) -> tuple[Losses, Losses]:
        """Return the losses on fixed training batches, and on the validation split from end to end."""
        total, batches = final_batches(self.corpus.val, self.config)
        train = self.checked(lambda: self._evaluate(fixed_batches(self.corpus.train, self.config)))
        return train, self.checked(lambda: self._evaluate(self.watched(batches, total, stop)))

    def _evaluate(self, batches: Iterable[Batch]) -> Losses:
        return evaluate(self.raw_model, batches, self.accelerator.device, autocast=self.accelerator.autocast())

    def save_weights(self, folder: Path) -> None:
        """Save the model and its tokenizer into a new folder."""
        checkpoint.save_model(folder, self.raw_model, self.corpus.tokenizer)

    def load_weights(self, folder: Path) -> None:
        """Load the weights of a saved model of the same shape.

        Raises:
            ValueError: For a model of another shape.
            CheckpointError: If it is damaged.
        """
        model = GPT.from_pretrained(folder)
        if model.config != self.raw_model.config or model.wte.weight.dtype != self.raw_model.wte.weight.dtype:
            raise ValueError("its model has another shape")
        self.raw_model.load_state_dict(model.state_dict())

    def described_data(self) -> str:
        """Return the name of the text in words."""
        return f"The text {self.config.data!r}"

    def figures(self, train: Losses, val: Losses) -> dict[str, Any]:
        """Return the figures of this model for the report."""
        where = {"device": str(self.accelerator.device), "processes": self.accelerator.num_processes}
        return {"name": self.name, **where, **run_figures(self.raw_model, self.state, train, val)}
