"""The training loop of one model."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qiskit_qattn.errors import BackendError, CheckpointError, ConfigError, EncodingError
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training import checkpoint
from qiskit_qattn.training.checkpoint import TrainLoss, TrainState, Validation
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.data import Corpus, fingerprint, random_batch
from qiskit_qattn.training.figures import StepProfiler, reset_peaks, run_figures
from qiskit_qattn.training.files import remove_leftovers, writing
from qiskit_qattn.training.optimizer import check_state, clip_gradients, lr_factor, make_optimizer, set_learning_rates
from qiskit_qattn.training.progress import InterruptGuard, Progress, TrainingInterrupted
from qiskit_qattn.training.validation import Batch, Losses, evaluate, final_batches, fixed_batches
from qiskit_qattn.untrusted import one_line

if TYPE_CHECKING:
    from accelerate import Accelerator

    from qiskit_qattn.backends.place import Place


class Trainer:
    """Trains one model on one corpus.

    The same seed gives the same weights and the same batches, whatever the heads; each of several
    processes takes its share of the same batch. On a CPU a resumed run repeats an uninterrupted one to the bit.

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

        if config.batch_size % accelerator.num_processes:
            raise ConfigError(
                f"batch_size is {config.batch_size}, but must be divisible by {accelerator.num_processes} processes."
            )
        self.config = config
        self.corpus = corpus
        self.folder = folder
        self.name = name
        self.accelerator = accelerator
        self.progress = progress or Progress()
        self.state = TrainState()
        set_seed(config.seed)
        self.raw_model = model_class(dataclasses.replace(config.model, vocab_size=corpus.tokenizer.vocab_size))
        self.raw_model.to_backend(config.backend if backend is None else backend)
        optimizer = make_optimizer(self.raw_model, self.raw_model.circuit_parameters(), config)
        self.model, self.optimizer = accelerator.prepare(self.raw_model, optimizer)
        set_seed(config.seed, device_specific=True)  # dropout differs between processes, weights do not
        self.generator = torch.Generator().manual_seed(config.seed)
        self._text = fingerprint(corpus)
        self._profiler = StepProfiler(enabled=config.profile)
        self._started = (0.0, 0.0)
        self._before_step: tuple[torch.Tensor, torch.Tensor] | None = None  # random states, during a step

    def resume(self) -> None:
        """Continue from the newest checkpoint, if there is one.

        Raises:
            CheckpointError: If it is damaged, or of another model.
            ConfigError: If it is past the last step, or was written by another number of processes.
        """
        for folder in (self.folder, self.folder / "checkpoints"):
            remove_leftovers(folder, older_than=0)
        found = checkpoint.list_checkpoints(self.folder / "checkpoints")
        if not found:
            return
        path = found[-1]
        self.state = checkpoint.load_state(path)
        if self.state.step > self.config.max_steps:
            raise ConfigError(f"{str(path)!r} is past max_steps = {self.config.max_steps}; give a larger number.")
        tensors = checkpoint.load_tensors(path)
        if tensors["text"] != self._text:
            raise ConfigError(f"The text {self.config.data!r} is not the one that {str(path)!r} was trained on.")
        processes = self.accelerator.num_processes
        if len(tensors["random"]) != processes:
            raise ConfigError(f"{str(path)!r} is of {len(tensors['random'])} processes, but {processes} are running.")
        try:
            model = GPT.from_pretrained(path / "model")
            if model.config != self.raw_model.config or model.wte.weight.dtype != self.raw_model.wte.weight.dtype:
                raise ValueError("its model has another shape")
            self.raw_model.load_state_dict(model.state_dict())
            check_state(tensors["optimizer"], self.optimizer)
            self.optimizer.load_state_dict(tensors["optimizer"])
            self.generator.set_state(tensors["generator"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(tensors["scaler"])
            checkpoint.restore_random_states(tensors["random"][self.accelerator.process_index])
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = one_line(str(error))[:200] or type(error).__name__
            raise CheckpointError(f"The checkpoint {str(path)!r} does not fit this run: {reason}") from error

    def train(self) -> dict[str, Any]:
        """Train up to the last step, validate on the whole split, save the model, and return its figures.

        Raises:
            TrainingInterrupted: If SIGINT or SIGTERM came; the state has been saved.
            BackendError: If the backend fails, or a budget is used up; the state before that step has been saved.
            RunFolderError: If something cannot be written.
        """
        self._started = (time.perf_counter(), time.process_time())
        reset_peaks()
        if self.accelerator.is_main_process:
            self.progress.phase_started(self.name, self.state.step, self.config.max_steps)
        self.model.train()
        with InterruptGuard() as guard, self._saved_if_a_backend_fails():
            saved = self.state.step if self.state.step else None
            while True:
                step = self.state.step
                last = step == self.config.max_steps
                due = last or step % self.config.checkpoint_interval == 0
                if self._must_stop(guard):
                    self._save_and_stop(guard)
                if last or step % self.config.eval_interval == 0:
                    self._validate()
                if due and step and step != saved:
                    self._save()
                if last:
                    break
                self._step()
            train, val = self._final_losses(guard)
            self._save_model()
        if self.accelerator.is_main_process:
            self.progress.phase_finished(self.name, val.all_positions, val.last_position)
        return self._figures(train, val)

    def _step(self) -> None:
        """Do one optimizer step on the next batch."""
        config, state = self.config, self.state
        profiled = self._profiler.active
        self._before_step = self.generator.get_state(), torch.get_rng_state()
        self._profiler.before_step()
        begin = time.perf_counter()
        x, y = random_batch(self.corpus.train, config.batch_size, config.model.block_size, self.generator)  # (B, T)
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        x, y = x[share].to(self.accelerator.device), y[share].to(self.accelerator.device)  # (B / processes, T)
        set_learning_rates(self.optimizer, lr_factor(state.step, config))
        try:
            _, loss = self.model(x, y)
        except EncodingError as error:
            raise self._diverged(error, state.step + 1) from error
        self.accelerator.backward(loss)
        self.accelerator.unscale_gradients(self.optimizer)
        clip_gradients(self.optimizer, config)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        self._before_step = None
        shown = self._log_loss(loss) if state.step % config.log_interval == 0 else None
        if not profiled:
            state.tokens += config.batch_size * config.model.block_size
            state.train_seconds += time.perf_counter() - begin
        state.profile = self._profiler.after_step() or state.profile
        if self.accelerator.is_main_process:
            self.progress.step_done(state.step, shown, state.tokens_per_second)

    def _log_loss(self, loss: torch.Tensor) -> float:
        """Record the loss of the step that just ended, averaged over processes."""
        value = float(self.accelerator.reduce(loss.detach(), reduction="mean"))
        if not math.isfinite(value):
            raise ConfigError(f"The training loss is {value} at step {self.state.step}; try a lower learning_rate.")
        self.state.train.append(TrainLoss(self.state.step, value))
        self._track({"train_loss": value, "tokens_per_second": self.state.tokens_per_second}, self.state.step)
        return value

    def _validate(self) -> None:
        """Validate on the fixed batches, unless the checkpoint has the figures of this step."""
        state = self.state
        if state.val and state.val[-1].step == state.step:
            return
        losses = self._evaluate(fixed_batches(self.corpus.val, self.config))
        recent = state.train[-1].loss if state.train else None
        found = Validation(state.step, recent, losses.all_positions, losses.last_position)
        state.val.append(found)
        self._track({"val_loss": found.val_loss, "val_loss_last_position": found.val_loss_last_position}, state.step)
        if self.accelerator.is_main_process:
            self.progress.validated(found, state.tokens_per_second)

    def _final_losses(self, guard: InterruptGuard) -> tuple[Losses, Losses]:
        """Return the losses on fixed training batches, and on the validation split from end to end."""
        total, batches = final_batches(self.corpus.val, self.config)

        def watched() -> Iterator[Batch]:
            for done, batch in enumerate(batches, start=1):
                if self._must_stop(guard):
                    raise TrainingInterrupted(self.folder, self.state.step, self._signal(guard))
                yield batch
                if self.accelerator.is_main_process:
                    self.progress.final_validation(done, total)

        return self._evaluate(fixed_batches(self.corpus.train, self.config)), self._evaluate(watched())

    def _evaluate(self, batches: Iterator[Batch]) -> Losses:
        """Return the losses over ``batches``, or raise if training has diverged."""
        try:
            losses = evaluate(self.raw_model, batches, self.accelerator.device, autocast=self.accelerator.autocast())
        except EncodingError as error:
            raise self._diverged(error, self.state.step) from error
        if not math.isfinite(losses.all_positions):  # the last position is a part of it
            raise ConfigError(
                f"The evaluated loss is {losses.all_positions} at step {self.state.step}; try a lower learning_rate."
            )
        return losses

    def _diverged(self, error: EncodingError, step: int) -> EncodingError:
        return EncodingError(f"Training diverged at step {step}; try a lower learning_rate. {error}")

    def _must_stop(self, guard: InterruptGuard) -> bool:
        """Return whether any process was asked to stop; all processes call this at the same points."""
        if self.accelerator.num_processes == 1:
            return guard.received is not None
        if guard.received is not None:
            self.accelerator.set_trigger()
        return bool(self.accelerator.check_trigger())

    def _signal(self, guard: InterruptGuard) -> int:
        return guard.received or 2  # another process received it

    @contextmanager
    def _saved_if_a_backend_fails(self) -> Iterator[None]:
        """Save the state when a backend fails: a resumed run repeats the failed step, with the jobs it has paid for."""
        try:
            yield
        except BackendError:
            if self._before_step is not None:
                self.generator.set_state(self._before_step[0])
                torch.set_rng_state(self._before_step[1])
            if self.state.step and self.accelerator.num_processes == 1:  # other processes may not have failed
                self._save()
            raise

    def _save_and_stop(self, guard: InterruptGuard) -> None:
        self._save()
        raise TrainingInterrupted(self.folder, self.state.step, self._signal(guard))

    def _save(self) -> None:
        """Write a checkpoint of the current state."""
        states = [checkpoint.random_states()]
        if self.accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            states = gather_object(states)
        self._read_clocks()
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            tensors: checkpoint.Tensors = {
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "generator": self.generator.get_state(),
                "random": states,
                "text": self._text,
            }
            folder = self.folder / "checkpoints"
            checkpoint.save_checkpoint(folder, self.raw_model, self.corpus.tokenizer, self.state, tensors)
        self.accelerator.wait_for_everyone()

    def _save_model(self) -> None:
        if self.accelerator.is_main_process:
            checkpoint.save_model(self.folder / "model", self.raw_model, self.corpus.tokenizer)
        self.accelerator.wait_for_everyone()

    def _read_clocks(self) -> None:
        """Add the time since the last reading."""
        now = (time.perf_counter(), time.process_time())
        self.state.wall_seconds += now[0] - self._started[0]
        self.state.cpu_seconds += now[1] - self._started[1]
        self._started = now

    def _track(self, values: dict[str, float], step: int) -> None:
        """Send figures to the trackers, grouped so that model and baseline share a chart."""
        with writing(self.folder / "logs"):
            self.accelerator.log({f"{key}/{self.name}": value for key, value in values.items()}, step=step)

    def _figures(self, train: Losses, val: Losses) -> dict[str, Any]:
        """Return the figures of this model for the report."""
        self._read_clocks()
        where = {"device": str(self.accelerator.device), "processes": self.accelerator.num_processes}
        return {"name": self.name, **where, **run_figures(self.raw_model, self.state, train, val)}
