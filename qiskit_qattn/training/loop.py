"""The training loop: steps, validations and checkpoints of a model, whatever it is and whatever it is trained on."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.profiler import record_function

from qiskit_qattn.errors import BackendError, CheckpointError, ConfigError, DivergenceError, EncodingError
from qiskit_qattn.nn.sampling import set_sampling_step
from qiskit_qattn.training import checkpoint
from qiskit_qattn.training.acceleration import SLOW_STEPS, compile_model, wait_for
from qiskit_qattn.training.checkpoint import TrainLoss, TrainState, Validation
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.files import remove_leftovers, writing
from qiskit_qattn.training.metrics import reset_peaks
from qiskit_qattn.training.optimizer import clip_gradients, load_state, lr_factor, make_optimizer, set_learning_rates
from qiskit_qattn.training.profiling import StepProfiler
from qiskit_qattn.training.progress import InterruptGuard, Progress, TrainingInterrupted
from qiskit_qattn.training.validation import Losses
from qiskit_qattn.untrusted import one_line

if TYPE_CHECKING:
    from accelerate import Accelerator


class TrainingLoop(ABC):
    """Trains one model. A subclass says what the model and its data are.

    The same seed gives the same batches, whatever the model; each of several processes takes its share of the same
    batch. On a CPU a resumed run repeats an uninterrupted one to the bit.

    Args:
        config: The run's settings.
        model: The model, with the weights it starts from.
        circuit_parameters: The parameters of the model that are angles of circuits.
        folder: The folder of ``checkpoints``, ``model`` and the figures.
        accelerator: Hugging Face Accelerate's handle on devices, precision and processes.
        name: The model's name in progress and trackers.
        progress: Receives the events of the training.
        data: A hash of the data, by which a resumed run recognises it.

    Attributes:
        batch_items: What a batch counts for in the throughput, such as its tokens.
    """

    batch_items: int

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        circuit_parameters: Iterable[nn.Parameter],
        folder: Path,
        *,
        accelerator: Accelerator,
        name: str,
        progress: Progress | None,
        data: str,
    ) -> None:
        from accelerate.utils import set_seed

        if config.batch_size % accelerator.num_processes:
            raise ConfigError(
                f"batch_size is {config.batch_size}, but must be divisible by {accelerator.num_processes} processes."
            )
        self.config = config
        self.folder = folder
        self.name = name
        self.accelerator = accelerator
        self.progress = progress or Progress()
        self.state = TrainState()
        model.to(accelerator.device)
        optimizer = make_optimizer(model, circuit_parameters, config)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self._slow_steps = SLOW_STEPS if config.compile else 0  # first steps, not counted in the throughput
        if config.compile:
            compile_model(self.model, accelerator.device)
        set_seed(config.seed, device_specific=True)  # dropout differs between processes, weights do not
        self.generator = torch.Generator().manual_seed(config.seed)
        self._data = data
        profiled = model if config.profile and accelerator.is_main_process else None
        self._profiler = StepProfiler(profiled, folder, compiled=config.compile)
        self._started = (0.0, 0.0)
        self._before_step: tuple[torch.Tensor, torch.Tensor] | None = None  # random states, during a step

    @abstractmethod
    def batch_loss(self) -> torch.Tensor:
        """Return the loss of this process's share of the next batch."""

    @abstractmethod
    def fixed_losses(self) -> Losses:
        """Return the losses over the validation batches that are the same at each validation."""

    @abstractmethod
    def final_losses(self, stop: InterruptGuard) -> tuple[Losses, Losses]:
        """Return the losses on training data and on the whole validation data; :meth:`watched` watches ``stop``."""

    @abstractmethod
    def save_weights(self, folder: Path) -> None:
        """Save the model into a new folder."""

    @abstractmethod
    def load_weights(self, folder: Path) -> None:
        """Load the weights that :meth:`save_weights` saved.

        Raises:
            ValueError, RuntimeError, CheckpointError: If they are not this model's.
        """

    @abstractmethod
    def figures(self, train: Losses, val: Losses) -> dict[str, Any]:
        """Return the figures of the trained model, as plain values for JSON."""

    def resume(self) -> None:
        """Continue from the newest checkpoint, if there is one.

        Raises:
            CheckpointError: If it is damaged, or of another model.
            ConfigError: If it is past the last step, of other data, or was written by another number of processes.
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
        if tensors["text"] != self._data:
            raise ConfigError(f"{self.described_data()} is not the one that {str(path)!r} was trained on.")
        processes = self.accelerator.num_processes
        if len(tensors["random"]) != processes:
            raise ConfigError(f"{str(path)!r} is of {len(tensors['random'])} processes, but {processes} are running.")
        try:
            self.load_weights(path / "model")
            load_state(tensors["optimizer"], self.optimizer)
            self.generator.set_state(tensors["generator"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(tensors["scaler"])
            checkpoint.restore_random_states(tensors["random"][self.accelerator.process_index])
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = one_line(str(error))[:200] or type(error).__name__
            raise CheckpointError(f"The checkpoint {str(path)!r} does not fit this run: {reason}") from error

    @abstractmethod
    def described_data(self) -> str:
        """Return what the data are called in an error, such as ``The text 'a.txt'``."""

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
        with InterruptGuard() as guard, self._saved_if_a_backend_fails(), self._profiler:
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
            train, val = self.final_losses(guard)
            if self.accelerator.is_main_process:
                self.save_weights(self.folder / "model")
            self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.progress.phase_finished(self.name, val.all_positions, val.last_position)
        self._read_clocks()
        return self.figures(train, val)

    def do_steps(self, count: int) -> None:
        """Do ``count`` steps, without validations and checkpoints, and write their profile if one is asked for."""
        self.model.train()
        with self._profiler:
            for _ in range(count):
                self._step()

    def _step(self) -> None:
        """Do one optimizer step on the next batch."""
        config, state = self.config, self.state
        timed = not self._profiler.active and self._slow_steps == 0
        self._slow_steps = max(0, self._slow_steps - 1)
        self._before_step = self.generator.get_state(), torch.get_rng_state()
        self._profiler.before_step()
        begin = time.perf_counter()
        set_learning_rates(self.optimizer, lr_factor(state.step, config))
        set_sampling_step(self.model, state.step)
        if config.compile:
            torch.compiler.cudagraph_mark_step_begin()  # what the last step's graphs computed may be overwritten
        try:
            with record_function("phase forward"):
                loss = self.batch_loss()
        except EncodingError as error:
            raise self._diverged(error, state.step + 1) from error
        with record_function("phase backward"):
            self.accelerator.backward(loss)
        with record_function("phase optimizer"):
            self.accelerator.unscale_gradients(self.optimizer)
            clip_gradients(self.optimizer, config)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        self._before_step = None
        shown = self._log_loss(loss) if state.step % config.log_interval == 0 else None
        if state.step == config.max_steps or state.step % config.eval_interval == 0:
            wait_for(self.accelerator.device)  # or the time of steps would count as the validation's
        if timed:
            state.tokens += self.batch_items
            state.train_seconds += time.perf_counter() - begin
        self._profiler.after_step(state.step)
        if self.accelerator.is_main_process:
            self.progress.step_done(state.step, shown, state.tokens_per_second)

    def _log_loss(self, loss: torch.Tensor) -> float:
        """Record the loss of the step that just ended, averaged over processes."""
        value = float(self.accelerator.reduce(loss.detach(), reduction="mean"))
        if not math.isfinite(value):
            raise DivergenceError(f"The training loss is {value} at step {self.state.step}; try a lower learning_rate.")
        self.state.train.append(TrainLoss(self.state.step, value))
        self._track({"train_loss": value, "tokens_per_second": self.state.tokens_per_second}, self.state.step)
        return value

    def _validate(self) -> None:
        """Validate on the fixed batches, unless the checkpoint has the figures of this step."""
        state = self.state
        if state.val and state.val[-1].step == state.step:
            return
        losses = self.checked(self.fixed_losses)
        recent = state.train[-1].loss if state.train else None
        found = Validation(state.step, recent, losses.all_positions, losses.last_position)
        state.val.append(found)
        self._track({"val_loss": found.val_loss, "val_loss_last_position": found.val_loss_last_position}, state.step)
        if self.accelerator.is_main_process:
            self.progress.validated(found, state.tokens_per_second)

    def watched(self, batches: Iterable[Any], total: int, stop: InterruptGuard) -> Iterator[Any]:
        """Yield the batches of the final validation, with progress.

        Raises:
            TrainingInterrupted: If a signal came; the state before the validation has been saved.
        """
        for done, batch in enumerate(batches, start=1):
            if self._must_stop(stop):
                raise TrainingInterrupted(self.folder, self.state.step, self._signal(stop))
            yield batch
            if self.accelerator.is_main_process:
                self.progress.final_validation(done, total)

    def checked(self, losses: Callable[[], Losses]) -> Losses:
        """Return what ``losses`` computes.

        Raises:
            DivergenceError: If a loss is not finite, or values cannot be encoded.
        """
        try:
            found = losses()
        except EncodingError as error:
            raise self._diverged(error, self.state.step) from error
        if not math.isfinite(found.all_positions):  # the last position is a part of it
            raise DivergenceError(
                f"The evaluated loss is {found.all_positions} at step {self.state.step}; try a lower learning_rate."
            )
        return found

    def _diverged(self, error: EncodingError, step: int) -> DivergenceError:
        return DivergenceError(f"Training diverged at step {step}; try a lower learning_rate. {error}")

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
                "text": self._data,
            }
            checkpoint.save_checkpoint(self.folder / "checkpoints", self.save_weights, self.state, tensors)
        self.accelerator.wait_for_everyone()

    def _read_clocks(self) -> None:
        """Add the time since the last reading."""
        now = (time.perf_counter(), time.process_time())
        self.state.wall_seconds += now[0] - self._started[0]
        self.state.cpu_seconds += now[1] - self._started[1]
        self._started = now

    def _track(self, values: dict[str, float | None], step: int) -> None:
        """Send figures to the trackers, grouped so that model and baseline share a chart."""
        with writing(self.folder / "logs"):
            self.accelerator.log(
                {f"{key}/{self.name}": value for key, value in values.items() if value is not None}, step=step
            )
