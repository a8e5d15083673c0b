"""Tasks of labelled sentences: files of each format, benchmarks' files, and what is wrong with bad ones."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet
import pytest

from qiskit_qattn.errors import DataError, UnknownNameError
from qiskit_qattn.training.labelled import load_task, sized

SENTENCES = [(f"sentence {i}", "yes" if i % 3 else "no") for i in range(20)]


def write(path, rows, separator="\t"):
    path.write_text("\n".join(separator.join(row) for row in rows) + "\n")
    return str(path)


def test_all_formats_hold_the_same_task(tmp_path):
    header = ("sentence", "label")
    tsv = load_task(write(tmp_path / "a.tsv", [header, *SENTENCES]))
    csv = load_task(write(tmp_path / "a.csv", [header, *SENTENCES], ","))
    columns = {"id": list(range(20)), "sentence": [s for s, _ in SENTENCES], "label": [label for _, label in SENTENCES]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    parquet = load_task(str(tmp_path / "a.parquet"))
    assert tsv.train == csv.train == parquet.train and tsv.dev == csv.dev == parquet.dev
    assert tsv.classes == ("no", "yes") and tsv.metrics[0] == "accuracy"
    assert len(tsv.train) == 18 and len(tsv.dev) == 2
    assert set(tsv.train.first) | set(tsv.dev.first) == {s for s, _ in SENTENCES}


def test_csv_is_quoted_and_tsv_is_not(tmp_path):
    rows = [("sentence", "label"), ('"so, so"', "1"), ('"a ""b"""', "0"), ("c", "1")]
    task = load_task(write(tmp_path / "a.csv", rows, ","))
    assert {*task.train.first, *task.dev.first} == {"so, so", 'a "b"', "c"}
    task = load_task(write(tmp_path / "a.tsv", rows))
    assert {*task.train.first, *task.dev.first} == {'"so, so"', '"a ""b"""', "c"}


def test_pairs_numbers_and_a_file_for_evaluation(tmp_path):
    train = [("sentence1", "sentence2", "label"), *((f"a {i}", f"b {i}", str(i % 2)) for i in range(6))]
    path = write(tmp_path / "a.tsv", train)
    task = load_task(path, write(tmp_path / "b.tsv", train[:3]))
    assert task.train.second == [f"b {i}" for i in range(6)] and len(task.dev) == 2
    assert task.classes == ("0", "1")
    ratings = [("sentence", "label"), *((f"a {i}", str(i / 4)) for i in range(12))]
    numbers = load_task(write(tmp_path / "c.tsv", ratings))
    assert numbers.classes == () and numbers.metrics == ("spearman", "pearson")
    assert sorted([*numbers.train.labels, *numbers.dev.labels]) == [i / 4 for i in range(12)]
    ordered = [("sentence", "label"), *((f"a {i}", str(i)) for i in range(12))]
    classes = load_task(write(tmp_path / "d.tsv", ordered), write(tmp_path / "e.tsv", ordered)).classes
    assert classes == tuple(map(str, range(12)))


def test_benchmarks_are_read_as_they_are_distributed(tmp_path, monkeypatch):
    monkeypatch.setenv("QATTN_DATA_DIR", str(tmp_path))
    for name in ("CoLA", "RTE"):
        (tmp_path / "glue" / name).mkdir(parents=True)
    cola = [("gj04", "1", "", "A sentence."), ("gj04", "0", "*", 'A "sentences.'), ("gj04", "1", "", "Another.")]
    rte = [
        ("index", "sentence1", "sentence2", "label"),
        ("0", "a", "b", "entailment"),
        ("1", "c", "d", "not_entailment"),
    ]
    for split in ("train", "dev"):
        write(tmp_path / "glue" / "CoLA" / f"{split}.tsv", cola)
        write(tmp_path / "glue" / "RTE" / f"{split}.tsv", rte)
    task = load_task("cola")
    assert task.train.first == ["A sentence.", 'A "sentences.', "Another."] and task.train.labels == [1, 0, 1]
    assert task.metrics == ("matthews",)
    pairs = load_task("rte")
    assert pairs.train.second == ["b", "d"] and pairs.classes == ("entailment", "not_entailment")
    assert pairs.metrics == ("accuracy",)


def test_rows_are_drawn_by_the_seed(tmp_path):
    task = load_task(write(tmp_path / "a.tsv", [("sentence", "label"), *SENTENCES]))
    first, again, other = sized(task, 9, 1, 0), sized(task, 9, 1, 0), sized(task, 9, 1, 1)
    assert first.train == again.train != other.train and first.dev == other.dev
    labels = dict(SENTENCES)
    for sentence, label in zip(first.train.first, first.train.labels, strict=True):
        assert task.classes[label] == labels[sentence]
    assert sized(task, 0, 0, 3) == task == sized(task, 99, 99, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("text", "label"), ("a", "1")], "no column sentence; it must have .* It has: text, label"),
        ([("sentence", "class"), ("a", "1")], "no column label"),
        ([("sentence1", "label"), ("a", "1")], "no column sentence2"),
        ([("sentence", "label"), ("a", "1"), ("b", "1"), ("c", "1")], "has one class, '1', in all"),
        ([("sentence", "label"), ("a", "0.5"), ("b", "0.5"), ("c", "0.5")], "the same label '0.5'"),
        ([("sentence", "label"), ("a", "1"), ("b", "")], "no label in row 2"),
        ([("sentence", "label"), ("", "1")], "no sentence in row 1"),
        ([("sentence", "label"), ("a", "1", "2")], "3 columns in row 1, but 2"),
        ([("sentence", "label")], "has no rows"),
        ([("sentence", "label"), ("a", "1")], "1 row, too few"),
        ([], "is empty"),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path, rows, message):
    with pytest.raises(DataError, match=message) as caught:
        load_task(write(tmp_path / "a.tsv", rows))
    assert "\n" not in str(caught.value)


def test_what_is_no_task_says_so(tmp_path, monkeypatch):
    with pytest.raises(UnknownNameError, match=r"'colla'\. Did you mean 'cola'\?"):
        load_task("colla")
    with pytest.raises(DataError, match=r"There is no file 'missing\.tsv'"):
        load_task("missing.tsv")
    with pytest.raises(DataError, match="its own rows for evaluation"):
        load_task("cola", "dev.tsv")
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match=r"formats \.tsv, \.csv, \.parquet"):
        load_task(str(tmp_path / "a.txt"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="is no parquet file"):
        load_task(str(tmp_path / "a.parquet"))
    (tmp_path / "a.csv").write_bytes(b"sentence,label\n\xff,1\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        load_task(str(tmp_path / "a.csv"))
    rows = [("sentence", "label"), ("a", "0"), ("b", "1")]
    train, dev = write(tmp_path / "t.tsv", rows), write(tmp_path / "d.tsv", [*rows, ("c", "2")])
    with pytest.raises(DataError, match="the class '2' in rows for evaluation only"):
        load_task(train, dev)


def test_a_task_that_cannot_be_fetched_says_how_to_bring_it(monkeypatch):
    with pytest.raises(DataError, match=r"Cannot fetch the task 'sst2' .* glue/SST-2/train\.tsv and dev\.tsv"):
        load_task("sst2")
