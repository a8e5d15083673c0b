from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qiskit_qattn.evaluation.comparison import tasks
from qiskit_qattn.evaluation.comparison.plan import plan_study
from qiskit_qattn.evaluation.comparison.tasks import ABOUT, TASKS, WORDS, digits, sentences, task_of
from qiskit_qattn.nn.multihead import QuantumMultiheadAttention
from qiskit_qattn.training.config import TrainConfig, resolve

CONFIG = {"n_layer": 2, "n_head": 2, "n_embd": 8, "block_size": 6, "heads": "classical:2", "num_qubits": 3}


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return resolve({**CONFIG, "device": "cpu", "batch_size": 4, "out": str(tmp_path / "study")})


@pytest.fixture
def reviews(tmp_path: Path) -> str:
    rows = [f"a {'good' if i % 2 else 'bad'} film, number {i}\t{i % 2}" for i in range(40)]
    path = tmp_path / "reviews.tsv"
    path.write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    return str(path)


def test_models_have_the_size_of_the_settings_and_the_kind_of_head(config: TrainConfig):
    task = digits("qisa:1,classical:1", 0, config=config)
    found = [part for part in task.model.modules() if isinstance(part, QuantumMultiheadAttention)]
    assert len(found) == 2
    assert all(part.embed_dim == 8 and part.num_heads == 2 for part in found)
    images, padding, labels = task.train[:5]
    assert (images.shape, padding.shape, labels.shape) == ((5, 8, 8), (5, 16), (5,))
    assert task.model(images, padding).shape == (5, 10)


def test_splits_of_digits_hold_out_other_rows_and_train_on_the_rest(config: TrainConfig):
    held = []
    for split in (0, 1):
        task = digits("classical", 0, split=split, config=config)
        rows = [part.tensors[0] for part in (task.train, task.validation)]
        assert sum(map(len, rows)) == 1797
        everything = torch.cat(rows).flatten(1).sum(1).sort().values
        held.append((rows[1], everything))
    assert torch.equal(held[0][1], held[1][1])
    assert not torch.equal(held[0][0], held[1][0])


def test_sentences_are_words_of_the_training_rows_and_the_first_split_is_the_tasks_own(
    config: TrainConfig, reviews: str
):
    task = sentences(reviews, "quadratic", 0, config=config)
    tokens, padding, _ = task.train.tensors
    assert tokens.shape == padding.shape == (36, 6)
    assert int(tokens.max()) < WORDS
    assert torch.equal(padding, tokens == 0)
    other = sentences(reviews, "quadratic", 0, split=1, config=config)
    assert len(other.validation) == len(task.validation) == 4
    assert not torch.equal(other.validation.tensors[0], task.validation.tensors[0])


def test_what_is_padding_changes_nothing(config: TrainConfig, reviews: str):
    torch.manual_seed(0)
    model = sentences(reviews, "qisa", 0, config=config).model.eval()
    tokens = torch.tensor([[5, 6, 7, 0, 0, 0]])
    other = torch.tensor([[5, 6, 7, 9, 3, 2]])
    padding = torch.tensor([[False] * 3 + [True] * 3])
    with torch.no_grad():
        assert torch.allclose(model(tokens, padding), model(other, padding), atol=1e-6)


def test_every_task_is_a_function_that_a_study_can_build(config: TrainConfig):
    assert set(ABOUT) == set(TASKS)
    for name, build in TASKS.items():
        assert task_of(build) == name
        assert not build or callable(getattr(tasks, build.partition(":")[2]))
    assert task_of("mine:build") == "mine:build"


@pytest.mark.more
def test_all_kinds_that_can_be_compared_are_matched_and_others_have_a_reason(config: TrainConfig, text_file: Path):
    for build in ("", TASKS["digits"]):
        study = plan_study(config.replace(data=str(text_file)), "all", 1, "classical", build=build)
        assert all(size.matched for size in study.sizes.values())
        assert len(study.kinds) > 10
        assert all(study.left_out.values())
        assert not set(study.left_out) & set(study.kinds)


def test_attention_is_sampled_as_the_settings_say(config: TrainConfig, reviews: str):
    sampled = config.replace(sampling="naive?samples=4")
    for task in (digits("classical", 0, config=sampled), sentences(reviews, "classical", 0, config=sampled)):
        found = [part.sampling for part in task.model.modules() if isinstance(part, QuantumMultiheadAttention)]
        assert [each.scheme.text for each in found if each is not None] == ["naive?samples=4"] * 2
