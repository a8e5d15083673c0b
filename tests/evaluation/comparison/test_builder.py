from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qiskit_qattn as qa
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.comparison.builder import Windows, load_builder
from qiskit_qattn.evaluation.comparison.cell import run_cell
from qiskit_qattn.evaluation.comparison.matching import Size, match_width, size_of, unmatched
from qiskit_qattn.evaluation.comparison.plan import open_study
from qiskit_qattn.evaluation.comparison.record import records
from qiskit_qattn.evaluation.comparison.report import write_report
from qiskit_qattn.evaluation.comparison.study import Study
from qiskit_qattn.training.data import load_corpus

Plan = Callable[..., Study]
Own = Callable[..., str]
IMPORTS = "import torch\nfrom torch import nn\nimport qiskit_qattn as qa\n"
DATA = "x = torch.zeros(8, 3)\ny = torch.zeros(8, 2)\nmse = nn.functional.mse_loss\n"
LANGUAGE = (
    IMPORTS
    + """
class Bigram(nn.Module):
    def __init__(self, kind, size):
        super().__init__()
        self.table = nn.Embedding(size, size)
        self.kind = kind

    def forward(self, idx, targets=None):
        logits = self.table(idx)
        if self.kind == "leaks":
            logits = logits + logits.mean(1, keepdim=True)
        loss = None if targets is None else nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss


def build(kind, seed, vocab_size, block_size):
    assert block_size == 8
    return Bigram(kind, vocab_size)
"""
)


@pytest.mark.parametrize(
    ("source", "name", "told"),
    [
        ("", "nosuchmodule:build", r"importing nosuchmodule from '.*project' raised ModuleNotFoundError: No module"),
        ("", "ownmodels:build", r"the module in '.*ownmodels\.py' has no function build\."),
        ("build = 3", "ownmodels:build", "has no function build"),
        ("raise OSError('no disk')", "ownmodels:build", "raised OSError: no disk"),
        ("raise SystemExit(3)", "ownmodels:build", "raised SystemExit: 3"),
        ("def build(", "ownmodels:build", "raised SyntaxError"),
        ("", "ownmodels", "must be of the form package.module:function"),
        ("", "ownmodels.py:build", "raised ModuleNotFoundError"),
        ("", "own models:build", "must be of the form"),
        ("", "ownmodels:", "must be of the form"),
        ("def build(kind): ...", "ownmodels:build", "must take a kind and a seed, and may take width, vocab_size"),
        ("def build(kind, seed, more): ...", "ownmodels:build", "missing a required argument: 'more'"),
    ],
)
def test_a_function_that_is_not_there_is_told_in_one_line(own: Own, source: str, name: str, told: str):
    own(source)
    with pytest.raises(ConfigError, match=told) as caught:
        load_builder(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("None", "it returned None, but must return a qa.Task, a dict with its fields"),
        ("3", "it returned an int, but must return"),
        ("(nn.Linear(3, 2), x, y)", "it returned a tuple, but must return"),
        ("nn.Linear", "it returned a type, but must return"),
        ("{'model': nn.Linear(3, 2)}", "a dict without train, validation; it must have those"),
        ("{'model': 1, 'train': (x, y), 'validation': (x, y), 'metrics': mse}", "a dict with metrics, but may have"),
        ("qa.Task(3, (x, y), (x, y), mse)", "model must be a torch.nn.Module, got 3"),
        ("qa.Task(nn.Linear(3, 2), 3, (x, y), mse)", "train must be a dataset with a length and an index"),
        ("qa.Task(nn.Linear(3, 2), (x, y), (x, y[:5]), mse)", "The tensors of validation have different lengths"),
        ("qa.Task(nn.Linear(3, 2), (x[:0], y[:0]), (x, y), mse)", "train is empty"),
        (
            "qa.Task(nn.Linear(3, 2), torch.utils.data.DataLoader([1]), (x, y), mse)",
            "got a DataLoader. Give its dataset: batches are drawn here",
        ),
        ("qa.Task(nn.Linear(3, 2), (x, y), (x, y), 'mse')", "loss must be a function or None, got 'mse'"),
        ("qa.Task(nn.Linear(3, 2), (x, y), (x, y), mse, {'mse': 1})", "metric must be a function or several by name"),
        (
            "qa.Task(nn.Linear(3, 2), (x, y), (x, y), lambda a, b: 3)",
            "loss must return a tensor of one number, got an int",
        ),
        ("qa.Task(nn.Linear(3, 2), (x, y), (x, y), mse, {'a': lambda a, b: None})", "The metric 'a' must return one"),
        ("qa.Task(nn.Linear(3, 2), (x, y), (x, y), lambda a, b: a)", r"of one number, got a tensor of shape \(4, 2\)"),
        ("qa.Task(nn.Linear(3, 2), (x,), (x,), mse)", "A batch must be a tuple of inputs and a target, or a mapping"),
        (
            "qa.Task(nn.Bilinear(3, 2, 1), (x, y), (x, y))",
            r"Without a loss the model must return \(output, loss\), .* of one number, got None",
        ),
        ("qa.Task(nn.Linear(4, 2), (x, y), (x, y), mse)", "the loss of a batch of train raised RuntimeError: mat1"),
        ("qa.Task(nn.Flatten(), (x, y), (x, y), mse)", "has no parameter to train"),
        ("qa.Task(nn.LazyLinear(2), (x, y), (x, y), mse)", "lazy parameters"),
        (
            "qa.Task(nn.Linear(3, 2), (x, y), (x, y), lambda a, b: mse(a.detach(), b))",
            "depends on no parameter that is",
        ),
        ("1 / 0", r"ownmodels:build\('plain', 0\) raised ZeroDivisionError: division by zero"),
        ("exit(3)", "raised SystemExit: 3"),
        ("nn.Linear(3, 2)", "the loss of a batch of train raised"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(
    plan_own: Plan, own: Own, text_file: Path, returned: str, told: str
):
    own(f"{IMPORTS}{DATA}def build(kind, seed):\n    return {returned}\n")
    with pytest.raises(ConfigError, match=told) as caught:
        plan_own(data=str(text_file))
    assert "\n" not in str(caught.value)
    assert "ownmodels:build" in str(caught.value)


def test_the_settings_of_a_gpt_are_not_those_of_ones_own_model(plan_own: Plan):
    with pytest.raises(ConfigError, match=r"With --build .* it cannot have n_layer = 2, n_embd = 8\."):
        plan_own(n_layer=2, n_embd=8)


def test_kinds_are_what_the_function_understands_but_name_folders(plan_own: Plan):
    study = plan_own("first.try;qisa:2,classical:2;qisa:1,classical:3", seeds=1)
    assert study.kinds == ("plain", "first.try", "qisa:2,classical:2", "qisa:1,classical:3")
    for kinds, told in [("a/b", "must consist of letters"), ("..", "must consist"), ("Plain", "no kind to compare")]:
        with pytest.raises(ConfigError, match=told):
            plan_own(kinds)


def test_a_dict_does_as_well_as_a_task(plan_own: Plan, own: Own):
    task = "{'model': nn.Linear(3, 2), 'train': (x, y), 'validation': (x.numpy(), y.numpy()), 'loss': mse}"
    own(f"{IMPORTS}{DATA}def build(kind, seed):\n    return {task}\n")
    study = open_study(plan_own(seeds=1))
    for cell in study.cells():
        run_cell(study, cell)
    first, second = records(study).values()
    assert first["val_loss"] == second["val_loss"]
    assert first["metrics"] == {}


def test_a_mapping_as_a_batch_goes_to_the_model_by_name(plan_own: Plan, own: Own):
    source = """
class Named(nn.Linear):
    def forward(self, x, y=None):
        return type("Output", (), {"logits": (logits := super().forward(x)), "loss": mse(logits, y)})

def spread(output, target):
    return (output - target["y"]).abs().mean()

def build(kind, seed):
    rows = [{"x": a, "y": b} for a, b in zip(x, y)]
    return qa.Task(Named(3, 2), rows, rows, metric={"spread": spread})
"""
    own(IMPORTS + DATA + source)
    study = open_study(plan_own(seeds=1))
    record = run_cell(study, study.cells()[0])
    assert record["metrics"]["spread"] > 0


def test_language_models_are_trained_on_the_text_and_certified(plan_own: Plan, own: Own, text_file: Path):
    own(LANGUAGE)
    study = open_study(plan_own("leaks", seeds=1, data=str(text_file), block_size=8))
    for cell in study.cells():
        run_cell(study, cell)
    causal, leaks = records(study).values()
    assert causal["causality"]["passed"] and not leaks["causality"]["passed"]
    report = write_report(study, {})
    assert report["kinds"]["leaks"]["leaks"] == [0]
    text = (study.folder / "report.md").read_text()
    assert "reads its own future" in text and "## Causality" in text and "× 8 tokens" in text
    assert "n_embd" not in text


def test_language_models_need_not_compute_their_loss(plan_own: Plan, own: Own, text_file: Path):
    source = LANGUAGE.replace(
        "def forward(self, idx, targets=None):", "def forward(self, idx):\n        targets = None"
    )
    losses = []
    for text in (LANGUAGE, source, source.replace("return logits, loss", "return logits")):
        own(text)
        study = open_study(
            plan_own("other", seeds=1, data=str(text_file), block_size=8, out=f"study{len(losses)}", max_steps=3)
        )
        losses.append(run_cell(study, study.cells()[0])["val_loss"])
    assert losses == [pytest.approx(losses[0])] * 3
    own(source.replace("return logits, loss", "return logits[:, 0]"))
    with pytest.raises(
        ConfigError, match=r"Expected logits of shape \(4, 8, 'vocabulary'\) from the model, got a tensor"
    ):
        plan_own("other", data=str(text_file), block_size=8)


def test_a_gpt_may_be_ones_own_model(plan_own: Plan, own: Own, text_file: Path):
    own(
        """
import qiskit_qattn as qa

def build(kind, seed, vocab_size, block_size):
    heads = "classical:1" if kind == "plain" else "qisa:1"
    shape = {"n_layer": 1, "n_head": 1, "n_embd": 8, "num_qubits": 3}
    return qa.GPT(qa.GPTConfig(vocab_size=vocab_size, block_size=block_size, heads=heads, **shape))
"""
    )
    study = open_study(plan_own("qisa", seeds=1, data=str(text_file), block_size=8, max_steps=2))
    found = run_cell(study, study.cells()[1])
    assert found["causality"] == {"passed": True, "leakage": 0, "gradient": 0, "edited": None, "changed": None}
    assert found["circuits"]["meyer_wallach"] > 0 and found["parameters"]["quantum"] > 0


def test_the_windows_of_a_text(text_file: Path):
    corpus = load_corpus(text_file, 8)
    windows = Windows(corpus.val, 8, 8)
    assert len(windows) == (len(corpus.val) - 1) // 8
    x, y = windows[len(windows) - 1]
    assert torch.equal(x[1:], y[:-1]) and len(x) == len(y) == 8
    assert len(Windows(corpus.val, 8, 1)) == len(corpus.val) - 8


def test_the_function_gets_the_width_that_matches(plan_own: Plan):
    sizes = plan_own("quantum,wide").sizes
    assert sizes["plain"].n_inner == 0  # its own choice
    assert sizes["wide"].n_inner == 16 and sizes["wide"].total == sizes["plain"].total
    unit = sizes["quantum"].total - plan_own("quantum").sizes["quantum"].total
    assert unit == 0 and abs(sizes["quantum"].total - sizes["plain"].total) <= 5
    assert sizes["quantum"].circuit > 0 and sizes["quantum"].num_qubits == 2


@pytest.mark.parametrize("target", [1, 5, 7, 8, 500, 10**6])
def test_the_nearest_width_is_found(target: int):
    def sized(width: int) -> Size:
        return Size("kind", width, 0, 3 + 5 * width, 0, 0, 0)

    best = min(range(1, 250_000), key=lambda width: (abs(3 + 5 * width - target), width))
    assert abs(match_width(sized, target).total - target) == abs(3 + 5 * best - target)


def test_a_width_without_effect_is_found_out():
    asked = []

    def sized(width: int) -> Size:
        asked.append(width)
        return Size("kind", width, 0, 10, 10, 0, 0)

    assert match_width(sized, 100).total == 10
    assert max(asked) <= 2048


def test_a_function_without_width_is_compared_as_it_is_and_said_to_be(plan_own: Plan, own: Own):
    source = "def build(kind, seed):\n    return qa.Task(nn.Linear(3, 2, bias=kind == 'plain'), (x, y), (x, y), mse)\n"
    own(IMPORTS + DATA + source)
    study = plan_own("other", seeds=1)
    assert study.sizes["other"].deviation == pytest.approx(6 / 8 - 1)
    assert unmatched(study.sizes, custom=True) == ["other has 6 (-25.0%), and the function takes no width"]
    study = open_study(study)
    for cell in study.cells():
        run_cell(study, cell)
    write_report(study, {})
    text = (study.folder / "report.md").read_text()
    assert "within 1%, except other" in text
    assert "| `other` | 6 | -25.00% (**not matched**) |" in text


def test_parameters_are_counted_once_and_circuits_apart():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(3, 3, bias=False)
            self.two = nn.Linear(3, 3, bias=False)
            self.two.weight = self.one.weight
            self.head = qa.QuantumHead(qa.attention_circuit("angle", num_qubits=2), trainable=False)
            self.same = qa.QuantumHead(qa.attention_circuit("angle", num_qubits=2))
            self.same.weight, self.same.gain = self.head.weight, self.head.gain
            self.register_buffer("scale", torch.ones(5))

    model = Model()
    angles = model.head.weight.numel()
    size = size_of("kind", 0, model)
    assert size.total == 9 + angles + model.head.gain.numel()
    assert (size.circuit, size.trainable, size.fixed) == (angles, size.total - angles, 5)
    assert size.num_qubits == 2


def test_building_draws_no_random_numbers_and_depends_on_the_seed(plan_own: Plan):
    config = plan_own().config
    builder = load_builder("ownmodels:build")
    before = torch.get_rng_state()
    models: list[Any] = [builder.build("plain", seed, config, pytest.fail).model for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    first, same, other = (model.first.weight for model in models)
    assert torch.equal(first, same) and not torch.equal(first, other)
