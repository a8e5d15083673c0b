"""``qattn finetune``: train adapters or all weights of a pretrained model on labelled sentences, and compare them."""

from __future__ import annotations

import os
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from qiskit_qattn.cli import options
from qiskit_qattn.cli.help import say
from qiskit_qattn.untrusted import one_line, printable

if TYPE_CHECKING:
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.cli.devices import Quote
    from qiskit_qattn.training.finetune import Prepared
    from qiskit_qattn.training.finetune_config import FinetuneConfig

_PACKAGES = ("transformers", "peft", "accelerate", "sklearn", "filelock")


def _option(panel: str, text: str, default: str | bool = False) -> Any:
    return typer.Option(help=text, rich_help_panel=panel, show_default=default)


_what, _adapters, _training = (partial(_option, panel) for panel in ("What", "Adapters", "Training"))


def command(
    context: typer.Context,
    model: Annotated[
        str | None,
        _what("minilm, smollm2, or the folder of a transformers model, or its name on the Hugging Face Hub.", "minilm"),
    ] = None,
    task: Annotated[
        str | None,
        _what(
            "A TSV, CSV or Parquet file with columns sentence (or sentence1 and sentence2) and label; films; or a task"
            " of GLUE: cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte, wnli, or of SuperGLUE: boolq, cb."
        ),
    ] = None,
    dev: Annotated[
        str | None, _what("A file with the rows for evaluation; empty: a tenth of the rows is held out.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--method",
            "--methods",
            help="Methods, separated by commas: adapters (qisa, unitary, lora, oft, quadratic, frozen), full for all"
            " weights, probe for the new classifier alone.",
            rich_help_panel="What",
            show_default="qisa",
        ),
    ] = None,
    seeds: Annotated[int | None, _what("Trainings of each method, with consecutive seeds from --seed.", "1")] = None,
    reference: Annotated[
        str | None, _what("The method that the others are compared with.", "lora if given, else the first")
    ] = None,
    out: Annotated[
        str | None,
        _what(
            "The folder of the results. The same command continues there; methods and seeds may be added.",
            "runs/finetune",
        ),
    ] = None,
    config: options.Config = None,
    seed: Annotated[int | None, _what("The first seed.", "0")] = None,
    num_qubits: Annotated[int | None, _adapters("Qubits of a circuit.", "4")] = None,
    reps: Annotated[int | None, _adapters("Ansatz layers of a circuit; 0: the kind's default.", "0")] = None,
    target_modules: Annotated[
        str | None,
        _adapters("Names of the layers to adapt, separated by commas, or all-linear.", "those that PEFT adapts"),
    ] = None,
    adapter: Annotated[
        str | None, _adapters("Saved adapters to start from: a folder that qattn finetune wrote, or a name on the Hub.")
    ] = None,
    backend: Annotated[str | None, _adapters("Where the circuits run, as a backend string.", "statevector")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Agree to any cost of a paid device.", rich_help_panel="Adapters")
    ] = False,
    epochs: Annotated[float | None, _training("Passes over the rows; 0 only evaluates.", "3")] = None,
    batch_size: Annotated[int | None, _training("Rows per step.", "32")] = None,
    learning_rate: Annotated[
        float | None, _training("Peak learning rate; 0: 5e-5 for full, 1e-3 for the others.", "0")
    ] = None,
    warmup: Annotated[float | None, _training("Share of the steps over which the rate rises.", "0.1")] = None,
    weight_decay: Annotated[float | None, _training("Weight decay.", "0")] = None,
    max_length: Annotated[
        int | None, _training("Largest number of tokens of a sentence; longer ones are cut.", "128")
    ] = None,
    train_rows: Annotated[int | None, _training("Rows for training, drawn with the seed; 0: all.", "0")] = None,
    dev_rows: Annotated[int | None, _training("Rows for evaluation; 0: all.", "0")] = None,
    checkpoint_interval: Annotated[int | None, _training("Steps between checkpoints.", "100")] = None,
    save_models: Annotated[bool | None, _training("Keep the trained adapters or models.", "True")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, _training("auto uses the accelerator, if there is one.", "auto")
    ] = None,
    threads: Annotated[int | None, _training("CPU threads; 0: PyTorch's choice.", "0")] = None,
) -> None:
    """Fine-tune a pretrained model on labelled sentences, with quantum adapters and their controls.

    Every method is trained with every seed, on the same rows in the same order. The report has the scores that GLUE
    defines, and compares the methods as qattn compare does. After an interruption the same command continues. A few
    steps of each method are timed first, to say how long a long fine-tuning will take. On a paid device, the cost is
    shown first, and nothing is sent without a budget in the backend string, or --yes.
    """
    options.require((*_PACKAGES, *options.TRAINING, "statsmodels"), "finetune")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else a note on each fork
    from qiskit_qattn.cli.devices import open_devices
    from qiskit_qattn.cli.messages import device_messages
    from qiskit_qattn.cli.progress import make_progress
    from qiskit_qattn.evaluation.finetune_report import write_report
    from qiskit_qattn.training.finetune import cell_seconds, finetune, prepare
    from qiskit_qattn.training.finetune_config import resolve_finetune
    from qiskit_qattn.training.progress import TrainingInterrupted

    given = {
        name: value for name, value in context.params.items() if value is not None and name not in ("config", "yes")
    }
    decided = resolve_finetune(given, config)
    prepared = prepare(decided)
    with open_devices(decided.backend, yes=yes, cost=partial(_cost, decided, prepared)) as (place, _):
        try:
            with make_progress() as progress, device_messages(progress.device_message):
                progress.forecast(partial(cell_seconds, decided, prepared, place))
                results = finetune(decided, prepared=prepared, backend=place, progress=progress)
        except TrainingInterrupted as error:
            say(f"{error} The same command continues: {_again(decided)}", err=True)
            raise typer.Exit(128 + error.signal) from error
    report = write_report(decided, results)
    _print_result(report, decided.folder)


def _again(config: FinetuneConfig) -> str:
    """Return the command that continues a folder."""
    return f"qattn finetune --out {shlex.quote(str(config.folder))}"


def _cost(config: FinetuneConfig, prepared: Prepared, backend: Backend) -> Quote:
    """Return the cost of what is left to train on a paid device, to be shown, and that of the first job."""
    from qiskit_qattn.cli.devices import parts_table
    from qiskit_qattn.evaluation.finetune_cost import finetune_cost

    parts, first = finetune_cost(config, prepared, backend)
    return parts_table(f"Cost of the fine-tuning on {backend.name}, about", backend, parts), first


def _print_result(report: dict[str, Any], folder: Path) -> None:
    """Print the main score of each method, and how it compares."""
    from qiskit_qattn.evaluation.finetune_report import spread
    from qiskit_qattn.training.scores import TITLES

    metric = report["metric"]
    for method, found in report["methods"].items():
        say(f"{method}: {TITLES[metric]} × 100: {spread(found['scores'][metric])}")
    for found in report["methods"].values():
        if "sentence" in found and len(found["seeds"]) > 1:
            say(one_line(found["sentence"]))
    say(f"report: {printable(str(folder / 'report.md'))}")
