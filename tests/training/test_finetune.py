"""Fine-tuning of a tiny BERT: every method, equal conditions, interruption, continuation and saved adapters."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import CheckpointError, ConfigError, RunFolderError, UnknownNameError
from qiskit_qattn.hf import add_adapters, load_adapters
from qiskit_qattn.training.finetune import build, cell_seconds, finetune, prepare, read_result
from qiskit_qattn.training.finetune_config import METHODS, FinetuneConfig, resolve_finetune
from qiskit_qattn.training.pretrained import load_classifier, load_tokenizer
from qiskit_qattn.training.progress import Progress, TrainingInterrupted


@pytest.fixture
def settings(tiny_bert, reviews, tmp_path):
    """Return a function that gives settings of a short fine-tuning, with changes."""

    def make(**changes):
        given = {
            "model": str(tiny_bert),
            "task": str(reviews),
            "out": str(tmp_path / "out"),
            "device": "cpu",
            "num_qubits": 2,
            "epochs": 1.0,
            "batch_size": 16,
            "max_length": 12,
            "learning_rate": 1e-2,
        }
        return FinetuneConfig(**{**given, **changes})

    return make


class Recorded(Progress):
    """Keeps the losses, and may send a signal at a step."""

    def __init__(self, stop_at: int = 0) -> None:
        self.started, self.stop_at = [], stop_at

    def phase_started(self, name, step, max_steps):
        self.started.append((name, step, max_steps))

    def step_done(self, step, loss, tokens_per_second):
        assert tokens_per_second > 0
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.more
def test_every_method_trains_and_adapters_have_one_size(settings):
    config = settings(methods=",".join(METHODS), save_models=False)
    results = {result["method"]: result for result in finetune(config)}
    assert list(results) == list(METHODS)
    sizes = {method: result["parameters"]["adapters"] for method, result in results.items()}
    assert sizes["full"] == sizes["probe"] == 0
    for method in ("qisa", "frozen", "quadratic", "lora"):  # these layers are tiny, so the nearest size is not near
        assert 0.8 < sizes[method] / sizes["qisa"] < 1.2
    for result in results.values():
        assert result["steps"] == 5 and (result["train_rows"], result["dev_rows"]) == (72, 8)
        assert set(result["scores"]) == {"accuracy", "f1", "matthews"}
    assert results["full"]["parameters"]["trained"] == results["full"]["parameters"]["total"]
    assert results["probe"]["parameters"]["trained"] == 2 * 32 + 2


def test_a_task_that_one_word_decides_is_learned(settings):
    (result,) = finetune(settings(methods="qisa", epochs=6.0, save_models=False, target_modules="all-linear"))
    assert result["scores"]["accuracy"] == 1.0
    assert result["dev_loss"] < 0.5


def test_methods_of_one_seed_start_from_the_same_model(settings):
    config = settings(methods="qisa,lora,full")
    prepared = prepare(config)
    tokens = torch.tensor([[2, 6, 7, 8, 9, 3]])
    with torch.no_grad():
        first, second, third = (build(config, prepared, m, 5).eval()(tokens).logits for m in config.method_names)
        other = build(config, prepared, "full", 6).eval()(tokens).logits
    assert torch.allclose(first, third, atol=1e-6) and torch.allclose(second, third, atol=1e-6)
    assert not torch.allclose(other, third)


def test_a_finished_seed_is_not_trained_again_and_seeds_and_methods_are_added(settings):
    config = settings(methods="lora", save_models=False)
    (before,) = finetune(config)
    progress = Recorded()
    more = resolve_finetune({**config.to_dict(), "methods": "probe", "seeds": 2})
    assert more.method_names == ("lora", "probe")
    results = finetune(more, progress=progress)
    assert [name for name, _, _ in progress.started] == ["probe seed 0", "lora seed 1", "probe seed 1"]
    assert results[0] == before and len(results) == 4
    assert resolve_finetune({"out": config.out}) == more


def test_each_method_is_timed_once_and_nothing_is_left_behind(settings, tmp_path):
    config = settings(methods="qisa,probe", seeds=2, epochs=9.0)
    found = cell_seconds(config, prepare(config), Place.open("statevector"))
    assert found is not None and len(found) == 4 and min(found) > 0
    assert found[:2] == found[2:]  # of the other seed
    assert not config.folder.exists()
    few = settings(methods="probe", epochs=1.0)
    assert cell_seconds(few, prepare(few), Place.open("statevector")) == []


@pytest.mark.parametrize("method", ["qisa", pytest.param("full", marks=pytest.mark.more)])
def test_an_interrupted_seed_continues_to_the_same_result(settings, tmp_path, method):
    config = settings(methods=method, epochs=2.0)
    whole = finetune(settings(methods=method, epochs=2.0, out=str(tmp_path / "whole")))[0]
    with pytest.raises(TrainingInterrupted) as stopped:
        finetune(config, progress=Recorded(stop_at=4))
    assert stopped.value.step == 4
    assert read_result(config, method, 0) is None
    broken = config.cell_folder(method, 0) / "checkpoints" / "checkpoint-9"  # of a process that was killed
    broken.mkdir()
    progress = Recorded()
    (result,) = finetune(config, progress=progress)
    assert progress.started == [(f"{method} seed 0", 4, 10)]
    assert result["dev_loss"] == whole["dev_loss"] and result["scores"] == whole["scores"]
    assert not broken.parent.exists()


def test_saved_adapters_give_the_evaluated_scores_again(settings, tmp_path):
    config = settings(methods="qisa", epochs=2.0)
    (result,) = finetune(config)
    saved = config.cell_folder("qisa", 0) / "model"
    again = settings(methods="qisa", epochs=0.0, adapter=str(saved), out=str(tmp_path / "again"))
    (evaluated,) = finetune(again)
    assert evaluated["dev_loss"] == result["dev_loss"] and evaluated["train_loss"] is None
    tokenizer = load_tokenizer(str(saved))
    model = load_classifier(config.model, ("0", "1"), tokenizer, 99)
    assert load_adapters(model, saved).get_nb_trainable_parameters()[0] == 0


def test_circuits_run_on_the_backend_and_the_saved_adapters_do_not_depend_on_it(settings):
    config = settings(methods="qisa,probe", epochs=0.0, backend="statevector?shots=200&seed=1", save_models=False)
    sampled, probe = finetune(config)
    assert sampled["backend"].startswith("statevector?") and probe["backend"] == "none"


def test_regression_is_scored_by_ranks(settings, tmp_path):
    path = tmp_path / "ratings.csv"
    rows = [f"the film was {'good' if i % 3 else 'bad'},{(i % 3) + 0.5}" for i in range(40)]
    path.write_text("\n".join(["sentence,label", *rows]))
    (result,) = finetune(settings(task=str(path), methods="full", epochs=4.0, save_models=False))
    assert set(result["scores"]) == {"spearman", "pearson"}
    assert result["scores"]["spearman"] > 0.5


def test_one_process_works_in_a_folder(settings):
    from filelock import FileLock

    config = settings(methods="probe")
    config.folder.mkdir()
    with FileLock(config.folder / ".lock"), pytest.raises(RunFolderError, match="Another process"):
        finetune(config)


def test_bad_settings_are_refused(settings, tiny_bert, tmp_path):
    with pytest.raises(UnknownNameError, match=r"method 'lorra'\. Did you mean 'lora'"):
        settings(methods="lorra")
    with pytest.raises(UnknownNameError, match="reference"):
        settings(methods="qisa", reference="lora")
    with pytest.raises(ConfigError, match=r"max_length is 33, but .* at most 32"):
        prepare(settings(max_length=33))
    with pytest.raises(ConfigError, match="There is no model 'nobody/nothing'"):
        prepare(settings(model="nobody/nothing"))
    with pytest.raises(ConfigError, match="has no layer that target_modules"):
        prepare(settings(target_modules="q_proj"))
    with pytest.raises(ConfigError, match="statevector only"):
        prepare(settings(methods="unitary", backend="statevector?shots=10"))
    with pytest.raises(ConfigError, match="those of one method"):
        settings(methods="qisa,lora", adapter="somewhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="holds no results"):
        resolve_finetune({"task": "cola", "out": str(tmp_path / "other")})


def test_another_setting_does_not_continue_a_folder(settings):
    config = settings(methods="probe", save_models=False)
    finetune(config)
    with pytest.raises(ConfigError, match=r"with epochs = 1\.0, not 2\.0"):
        resolve_finetune({**config.to_dict(), "epochs": 2.0})


def test_a_damaged_result_says_so(settings):
    config = settings(methods="probe", save_models=False)
    finetune(config)
    path = config.cell_folder("probe", 0) / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 7}))
    with pytest.raises(CheckpointError, match="Delete it to train again"):
        finetune(config)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(settings, tiny_bert, tmp_path):
    tokenizer = load_tokenizer(str(tiny_bert))
    tokenizer.add_tokens(["director"])
    model = load_classifier(str(tiny_bert), ("0", "1"), load_tokenizer(str(tiny_bert)), 0)
    model.save_pretrained(tmp_path / "grown")
    tokenizer.save_pretrained(tmp_path / "grown")
    with pytest.raises(ConfigError, match="does not fit its model: it has 17 tokens, and the model 16"):
        prepare(settings(model=str(tmp_path / "grown")))


def test_adapters_of_another_model_are_refused(settings, tiny_bert, tmp_path):
    tokenizer = load_tokenizer(str(tiny_bert))
    other = load_classifier(str(tiny_bert), ("a", "b", "c"), tokenizer, 0)
    add_adapters(other, "qisa", 2, task_type="SEQ_CLS").save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="are of another model"):
        prepare(settings(methods="qisa", adapter=str(tmp_path / "adapter")))


def test_a_model_without_its_weights_is_refused_and_a_new_classifier_is_not(settings, tiny_bert, tmp_path):
    tokenizer = load_tokenizer(str(tiny_bert))
    model = load_classifier(str(tiny_bert), ("a", "b", "c"), tokenizer, 0)
    weights = model.state_dict()
    for name, part in (("three", weights), ("less", {k: v for k, v in weights.items() if "layer.1" not in k})):
        model.save_pretrained(tmp_path / name, state_dict=part)
        tokenizer.save_pretrained(tmp_path / name)
    two = load_classifier(str(tmp_path / "three"), ("0", "1"), tokenizer, 4)
    assert two.classifier.weight.shape == (2, 32)
    assert torch.equal(two.bert.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight)
    same = load_classifier(str(tmp_path / "three"), ("a", "b", "c"), tokenizer, 4)
    assert torch.equal(same.classifier.weight, model.classifier.weight)
    with pytest.raises(ConfigError, match=r"does not hold the weights of its model: 16 are missing, such as bert\.enc"):
        prepare(settings(model=str(tmp_path / "less")))
