"""The settings of a training run as options of ``qattn train`` and ``qattn compare``, and what both commands need.

An option that is not given is None: the preset, or a TOML file, then decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from qiskit_qattn.errors import missing_dependency
from qiskit_qattn.training.presets import PRESETS

TRAINING = ("accelerate", "matplotlib", "rapidfuzz", "rich", "tomli_w")


def _option(panel: str, text: str, default: str | bool = False) -> Any:
    """Return an option; ``default`` is what its help shows as the default value."""
    return typer.Option(help=text, rich_help_panel=panel, show_default=default)


_run, _model, _optimisation, _evaluation, _sample = (
    partial(_option, panel) for panel in ("Run", "Model", "Optimisation", "Evaluation", "Sample")
)

Config = Annotated[Path | None, _run("A TOML file with settings.")]
Preset = Annotated[str | None, _run(f"The settings to start from: {', '.join(PRESETS)}.", "nano")]
Data = Annotated[str | None, _run("shakespeare, tinyshakespeare, or the path of a UTF-8 text file.", "shakespeare")]
Split = Annotated[
    int | None,
    _run("The tenth of the text to validate on, 0 for the last one; the model is trained on the rest.", "0"),
]
Out = Annotated[str | None, _run("The run folder; a new one, except with --resume. Empty: runs/PRESET.")]
Seed = Annotated[int | None, _run("Seed of the weights, the batches and the sample.")]
Baseline = Annotated[
    bool | None,
    _run("Also train an all-classical twin, with the same seed and batches."),
]
Backend = Annotated[str | None, _run("Where the circuits run, as a backend string.", "statevector")]
Device = Annotated[Literal["auto", "cpu", "cuda"] | None, _run("auto uses the accelerator, if there is one.", "auto")]
Compile = Annotated[
    bool | None, _run("Compile the training step with torch.compile; the first step then takes about a minute.")
]
Threads = Annotated[int | None, _run("CPU threads; 0: PyTorch's choice. Tiny models run fastest on one.")]
MixedPrecision = Annotated[Literal["no", "fp16", "bf16"] | None, _run("Precision of the classical layers.", "no")]
Trackers = Annotated[
    str | None,
    _run(
        "Experiment trackers that Accelerate supports, separated by commas; auto: TensorBoard if installed; or none.",
        "auto",
    ),
]
Profile = Annotated[bool | None, _run("Add time and memory by module to the report, and a check for memory leaks.")]

NLayer = Annotated[int | None, _model("Transformer blocks.", "nano: 4")]
NHead = Annotated[int | None, _model("Attention heads per block.", "nano: 4")]
NEmbd = Annotated[int | None, _model("Width of the embedding.", "nano: 128")]
NInner = Annotated[int | None, _model("Width of the MLP's hidden layer; 0: 4 n_embd.", "nano: 0")]
BlockSize = Annotated[int | None, _model("Context length in tokens.", "nano: 64")]
Dropout = Annotated[float | None, _model("Dropout probability.", "nano: 0.0")]
Bias = Annotated[bool | None, _model("Biases in linear layers and layer norms.", "nano: False")]
Heads = Annotated[
    str | None,
    _model(
        "Head kinds as kind:count,…, with counts that sum to n_head; a TOML list has one such string per block.",
        "nano: qisa:2,classical:2",
    ),
]
NumQubits = Annotated[int | None, _model("Qubits of a quantum head; 0: the fewest possible.", "nano: 5")]
Reps = Annotated[int | None, _model("Ansatz layers of a quantum head; 0: the kind's default.", "nano: 0")]
Sampling = Annotated[
    str | None,
    _model("How attention is sampled, such as stratified?samples=32. Empty: attention is exact."),
]

BatchSize = Annotated[int | None, _optimisation("Sequences per step, in all processes together.", "nano: 12")]
MaxSteps = Annotated[int | None, _optimisation("Training steps.", "nano: 2000")]
LearningRate = Annotated[float | None, _optimisation("Peak learning rate of the classical weights.", "nano: 0.001")]
MinLr = Annotated[float | None, _optimisation("Learning rate at the end of the cosine schedule.", "nano: 0.0001")]
WarmupSteps = Annotated[int | None, _optimisation("Steps of linear warm-up.", "nano: 100")]
WeightDecay = Annotated[
    float | None, _optimisation("Weight decay of matrices; circuit weights do not decay.", "nano: 0.1")
]
Beta1 = Annotated[float | None, _optimisation("Decay rate of AdamW's first moment.", "nano: 0.9")]
Beta2 = Annotated[float | None, _optimisation("Decay rate of AdamW's second moment.", "nano: 0.99")]
GradClip = Annotated[
    float | None, _optimisation("Largest gradient norm of the classical weights; 0: no limit.", "nano: 1.0")
]
CircuitLr = Annotated[float | None, _optimisation("Peak learning rate of the circuit weights.", "nano: 0.005")]
CircuitGradClip = Annotated[
    float | None, _optimisation("Largest gradient norm of the circuit weights; 0: no limit.", "nano: 1.0")
]

LogInterval = Annotated[int | None, _evaluation("Steps between logged training losses.", "10")]
EvalInterval = Annotated[int | None, _evaluation("Steps between validations.", "100")]
EvalBatches = Annotated[int | None, _evaluation("Batches per validation, the same ones each time.", "20")]
ValWindows = Annotated[int | None, _evaluation("Windows of text in the final validation; 0: the whole split.")]
CheckpointInterval = Annotated[int | None, _evaluation("Steps between checkpoints.", "250")]

SamplePrompt = Annotated[
    str | None,
    _sample(
        "Prompt of the report's sample. Empty: ROMEO: if the text has these characters, else the start of the"
        " validation split."
    ),
]
SampleTokens = Annotated[int | None, _sample("Length of the report's sample in tokens.", "400")]
Temperature = Annotated[float | None, _sample("Sampling temperature; 0: the most likely token.", "0.8")]
TopK = Annotated[int | None, _sample("Sample from the k most likely tokens; 0: all.")]


def given_settings(context: typer.Context) -> dict[str, Any]:
    """Return the settings that were given to a command as options, by name."""
    from qiskit_qattn.training.config import SETTINGS

    return {name: value for name, value in context.params.items() if name in SETTINGS and value is not None}


def quiet_profiler() -> None:
    """Keep torch's profiler from writing notes of its own to stderr; torch reads this when it is imported."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def require(packages: Iterable[str], extra: str) -> None:
    """Raise for the first package that is not installed, before any work.

    Args:
        packages: The names under which they are imported.
        extra: The extra of this package that installs them.

    Raises:
        MissingDependencyError: If one is missing.
    """
    for package in packages:
        if find_spec(package) is None:
            raise missing_dependency(package, extra)
