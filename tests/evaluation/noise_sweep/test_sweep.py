"""A sweep of a small run: what noise does to its loss, and what interruptions do not do to it."""

import csv
import dataclasses
import hashlib
import json
import math
import signal

import pytest
import torch

from qiskit_qattn.errors import CheckpointError, ConfigError, DataError, RunFolderError
from qiskit_qattn.evaluation.noise_sweep.plan import NoiseSweep, Point
from qiskit_qattn.evaluation.noise_sweep.report import mean_and_error
from qiskit_qattn.evaluation.noise_sweep.sweep import find, measure, missing, open_sweep, train_models
from qiskit_qattn.evaluation.text_metrics import spaced_windows
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.progress import Progress, TrainingInterrupted


def swept(sweep, **options):
    """Run a sweep as the command does, and return its record."""
    run, record = open_sweep(sweep)
    measure(sweep, run, train_models(sweep, run), record, **options)
    return record


def contents(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def sweep(finished_run, tmp_path_factory):
    return NoiseSweep(
        run=finished_run,
        out=tmp_path_factory.mktemp("sweeps") / "sweep",
        strengths=(0.0, 0.05, 1.0),
        shots=(20, 100_000),
        aware_steps=4,
        aware_strength=0.05,
        windows=6,
    )


@pytest.fixture(scope="module")
def before(finished_run):
    return contents(finished_run)


@pytest.fixture(scope="module")
def record(sweep, before):
    return swept(sweep)


def test_every_point_is_measured_on_the_same_windows(record, sweep):
    assert len(record["points"]) == 3 * 6 and not missing(sweep, record)
    assert {len(point["losses"]) for point in record["points"]} == {6}
    assert json.loads((sweep.out / "report.json").read_text())["points"] == record["points"]


def test_the_noiseless_loss_is_the_models_own(record, finished_run, sweep):
    run, _ = open_sweep(sweep)
    x, y = spaced_windows(run.corpus.val, 8, 6)
    with torch.no_grad():
        loss = GPT.from_pretrained(finished_run / "model")(x, y)[1].item()
    assert find(record, Point("trained"))["loss"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("model", ["trained", "control", "aware"])
def test_no_noise_and_many_shots_change_nothing_and_much_noise_and_few_shots_do(record, model):
    zero, full = (find(record, Point(model, strength=p)) for p in (0.0, 1.0))
    assert abs(zero["change"]) < 1e-6
    many, few = (find(record, Point(model, shots=count)) for count in (100_000, 20))
    rms = [math.sqrt(sum(c * c for c in changes(record, point)) / 6) for point in (many, few, full)]
    assert rms[0] < 0.2 * rms[1] and rms[2] > 100 * max(abs(zero["change"]), 1e-9)


def changes(record, point):
    exact = find(record, Point(point["model"]))["losses"]
    return [a - b for a, b in zip(point["losses"], exact, strict=True)]


def test_errors_are_standard_errors_over_windows_of_what_is_shown(record):
    for point in record["points"]:
        loss, error = mean_and_error(point["losses"])
        assert (point["loss"], point["standard_error"]) == (loss, error)
        assert (point["change"], point["change_standard_error"]) == mean_and_error(changes(record, point))
    values = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    assert mean_and_error(values.tolist()) == pytest.approx((7 / 3, values.std().item() / math.sqrt(3)))


def test_the_run_is_left_alone_and_copies_of_its_model_are_trained(record, sweep, before, finished_run):
    assert contents(finished_run) == before
    weights = [
        GPT.from_pretrained(folder / "model").state_dict()
        for folder in (finished_run, sweep.out / "control", sweep.out / "aware")
    ]
    steps = [max((w[name] - weights[0][name]).abs().max().item() for name in w) for w in weights[1:]]
    assert all(0 < step < 0.1 for step in steps)
    assert any(not torch.equal(weights[1][name], weights[2][name]) for name in weights[1])


def test_the_report_has_a_table_a_picture_and_the_line_that_repeats_it(record, sweep):
    text = (sweep.out / "report.md").read_text()
    assert "![Validation loss against noise and against shots](noise.png)" in text
    assert "| no noise |" in text and "| 0.05 |" in text and "| 100,000 |" in text
    assert "Loss of the noise-aware model minus that of the control" in text
    assert (
        f"--p 0,0.05,1 --shots 20,100000 --aware-steps 4 --aware-p 0.05 --windows 6 --seed 0 --out {sweep.out}" in text
    )
    assert (sweep.out / "noise.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((sweep.out / "points.csv").read_text().splitlines()))
    assert len(rows) == 18 and float(rows[1]["loss"]) == record["points"][1]["loss"]


def test_a_sweep_goes_on_where_it_was_stopped(record, sweep, tmp_path):
    class Stopped(Exception):
        pass

    def stop(point, found):
        if point.strength == 0.05:
            raise Stopped

    plain = dataclasses.replace(sweep, out=tmp_path / "sweep", aware_steps=0, aware_strength=None)
    with pytest.raises(Stopped):
        swept(plain, on_point=stop)
    run, half = open_sweep(plain)
    assert [point.label for point in missing(plain, half)] == ["p = 1", "20 shots", "100,000 shots"]
    measured = []
    measure(plain, run, train_models(plain, run), half, on_point=lambda point, found: measured.append(point))
    assert len(measured) == 3
    key = ("strength", "shots", "losses")
    own = [[p[k] for k in key] for p in record["points"] if p["model"] == "trained"]
    assert [[p[k] for k in key] for p in half["points"]] == own
    longer = dataclasses.replace(plain, strengths=(0.01,), shots=())
    assert len(swept(longer)["points"]) == 7


def test_noise_aware_training_that_was_interrupted_ends_as_if_it_was_not(record, sweep, tmp_path):
    class InterruptedAtStepTwo(Progress):
        def phase_started(self, name, step, max_steps):
            self.name = name

        def step_done(self, step, loss, tokens_per_second):
            if self.name == "aware" and step == 2:
                signal.raise_signal(signal.SIGINT)

    other = dataclasses.replace(sweep, out=tmp_path / "sweep")
    run, _ = open_sweep(other)
    with pytest.raises(TrainingInterrupted, match="stopped at step 2"):
        train_models(other, run, InterruptedAtStepTwo())
    resumed = train_models(other, open_sweep(other)[0])["aware"].state_dict()
    whole = GPT.from_pretrained(sweep.out / "aware" / "model").state_dict()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.parametrize(("name", "value"), [("windows", 7), ("seed", 1), ("noise", "readout")])
def test_another_sweep_takes_another_folder(record, sweep, name, value):
    with pytest.raises(RunFolderError, match=f"contains a sweep with {name} = .*, not {value!r}; give another --out"):
        open_sweep(dataclasses.replace(sweep, **{name: value}))


def test_folders_of_something_else_are_refused(sweep, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="exists and is no noise sweep"):
        open_sweep(dataclasses.replace(sweep, out=tmp_path))
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(RunFolderError, match="is no report of a noise sweep"):
        open_sweep(dataclasses.replace(sweep, out=tmp_path))
    for damaged in ("{", '{"format": "qiskit-qattn/noise-sweep"}'):
        (tmp_path / "report.json").write_text(damaged)
        with pytest.raises(CheckpointError, match="is damaged"):
            open_sweep(dataclasses.replace(sweep, out=tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name in ("run", "data", "heads") for value in (1, None, {})),
        *({name: value} for name in ("num_qubits", "block_size") for value in ("1", 1.5, None, True)),
        *({name: value} for name in ("settings", "versions", "machine", "points") for value in ("x", 1, None)),
        {"heads": ["qisa:2", 1]},
        {"points": {}},
        {"points": [1]},
        {"points": [{}]},
    ],
    ids=str,
)
def test_records_of_wrong_types_are_refused_and_left(record, sweep, tmp_path, change):
    assert_damaged(sweep, tmp_path, {**record, **change})


@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name in ("loss", "standard_error", "change_standard_error") for value in ("1", None, [])),
        *({name: value} for name in ("model", "backend") for value in (1, None)),
        {"model": "other"},
        *({"strength": value} for value in ("0.1", True, [])),
        *({"shots": value} for value in ("1", 1.5, True)),
        *({"losses": value} for value in (None, 1, ["1"], [1.0], [1.0] * 7, {})),
    ],
    ids=str,
)
def test_points_of_wrong_types_are_refused_and_left(record, sweep, tmp_path, change):
    first, *others = record["points"]
    assert_damaged(sweep, tmp_path, {**record, "points": [*others, {**first, **change}]})
    assert_damaged(sweep, tmp_path, {**record, "points": [{n: v for n, v in first.items() if n not in change}]})


def assert_damaged(sweep, folder, content):
    path = folder / "report.json"
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"The report '.*report\.json' is damaged") as caught:
        open_sweep(dataclasses.replace(sweep, out=folder))
    assert "\n" not in str(caught.value)
    assert json.loads(path.read_text()) == content


def test_a_point_that_lost_windows_is_no_reference_for_others(record, sweep, tmp_path):
    points = [{**point, "losses": point["losses"][:2]} for point in record["points"][:-1]]
    (tmp_path / "report.json").write_text(json.dumps({**record, "points": points}))
    with pytest.raises(CheckpointError, match=r"points\[0\] has 2 windows, but the sweep has 6"):
        open_sweep(dataclasses.replace(sweep, out=tmp_path))


def test_runs_that_noise_cannot_reach_are_refused(finished_run, sweep, tmp_path):
    def on(run):
        return dataclasses.replace(sweep, run=run, out=tmp_path / "sweep")

    with pytest.raises(RunFolderError, match="is no run folder of qattn train"):
        open_sweep(on(tmp_path / "nothing"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text((finished_run / "config.toml").read_text())
    with pytest.raises(RunFolderError, match="no trained model yet"):
        open_sweep(on(tmp_path / "run"))
    (tmp_path / "run" / "model").symlink_to(finished_run / "baseline" / "model")
    with pytest.raises(ConfigError, match="no quantum head, so noise changes nothing: its heads are classical:2"):
        open_sweep(on(tmp_path / "run"))
    assert not (tmp_path / "sweep").exists()


def test_a_validation_split_of_one_window_has_no_standard_error(sweep, tmp_path):
    plain = dataclasses.replace(sweep, out=tmp_path / "sweep", aware_steps=0, aware_strength=None)
    run, record = open_sweep(plain)
    short = dataclasses.replace(run, corpus=dataclasses.replace(run.corpus, val=run.corpus.val[:9]))
    with pytest.raises(DataError, match="one window of 8"):
        measure(plain, short, train_models(plain, short), record)
