"""``qattn run-on-device``: from a run folder to one page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.evaluation.device_run.record import DeviceRun
from qiskit_qattn.evaluation.device_run.report import command
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.tokenizer import CharTokenizer

Run = Callable[..., Any]
FILES = {"report.html", "report.md", "report.json", "figure.png", "paper"}
SAMPLED = "statevector?shots=128&seed=1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a saved model of 3 qubits, block 8 and width 8."""
    path, tokenizer = tmp_path_factory.mktemp("models") / "model", CharTokenizer("\n <b>|`")
    GPT(GPTConfig(tokenizer.vocab_size, 8, 1, 2, 8, heads="qisa:1,classical:1", num_qubits=3)).save_pretrained(path)
    tokenizer.save(path / "tokenizer.json")
    return path


@pytest.fixture
def on_device(qattn: Run, folder: Path, tmp_path: Path) -> Run:
    """Return a function that runs the command, with a report in ``tmp_path/page``."""

    def run(backend: str, *arguments: object, tokens: int = 3) -> Any:
        flags = ("--prompt", "<b>", "--tokens", tokens, "--out", tmp_path / "page")
        return qattn("run-on-device", folder, "--backend", backend, *flags, *arguments)

    return run


def more(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.more)


def record_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "page" / "report.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("backend", "shots", "modules"),
    [
        (SAMPLED, 128, []),
        ("density_matrix?noise=depolarizing&p1=0.01&p2=0.05", None, []),
        more("aer?noise=fake_manila&shots=128&seed=1", 128, ["qiskit_aer", "qiskit_ibm_runtime"]),
        more("braket:local_dm?noise=depolarizing&p1=0.01&p2=0.05&shots=128", 128, ["braket"]),
        ("ibm:fake_manila?shots=128&seed=1", 128, ["qiskit_aer", "qiskit_ibm_runtime"]),
        more("ibm:fake_torino?shots=128&seed=1&resilience=0", 128, ["qiskit_aer", "qiskit_ibm_runtime"]),
    ],
)
def test_a_page_is_made_anywhere(on_device: Run, tmp_path: Path, backend: str, shots: int | None, modules: list[str]):
    for module in modules:
        pytest.importorskip(module)
    result = on_device(backend)
    assert result.exit_code == 0, result.output
    page = tmp_path / "page"
    assert result.stdout.splitlines()[-1] == f"report: {page / 'report.html'}"
    assert {path.name for path in page.iterdir()} == FILES
    record = record_in(tmp_path)
    assert result.stdout.startswith("<b>" + record["text"]) and len(record["tokens"]) == 3
    [device] = record["devices"]
    assert (device["shots"], device["is_hardware"]) == (shots, False)
    assert record["samples"] == (0 if shots is None else 64)
    [head] = record["heads_compared"]
    assert head["values"] == 5 * len(record["expectations"][0]["values"]) / 3 and head["rms"] > 0
    assert (head["rms_error"] > 0) == (shots is not None)
    text = (page / "report.md").read_text("utf-8")
    assert "No quantum processor took part" in text and "What may be concluded" in text


def test_a_long_generation_says_how_long_before_it_starts(on_device: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("qiskit_qattn.evaluation.device_run.timing.token_seconds", lambda *_, **__: [100.0, 80.0])
    result = on_device(SAMPLED)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[-1] == "time: about 3.0 min" and "time:" not in result.stdout


def test_the_same_seed_draws_the_text_that_generate_does(qattn: Run, folder: Path, on_device: Run, tmp_path: Path):
    assert on_device(SAMPLED, "--seed", 4, tokens=12).exit_code == 0
    flags = ("--prompt", "<b>", "--tokens", 12, "--seed", 4, "--backend", SAMPLED)
    assert qattn("generate", folder, *flags).stdout == f"<b>{record_in(tmp_path)['text']}\n"


def test_a_snapshot_names_its_qubits_and_their_calibration(on_device: Run, tmp_path: Path):
    fake = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    assert on_device("ibm:fake_torino?shots=64&seed=1&resilience=0").exit_code == 0
    target = fake.FakeTorino().target
    found = record_in(tmp_path)["devices"][0]["calibration"]
    assert found["date"].startswith("2025-02-26") and len(found["qubits"]) == 3
    for each in found["qubits"]:
        assert each["readout"] == pytest.approx(target["measure"][each["qubit"],].error)
        assert each["t1"] == pytest.approx(target.qubit_properties[each["qubit"]].t1)
    used = {each["qubit"] for each in found["qubits"]}
    assert found["gates"] and all(set(gate["qubits"]) <= used for gate in found["gates"])
    for gate in found["gates"]:
        assert gate["error"] == pytest.approx(target[gate["name"]][tuple(gate["qubits"])].error)
    text = (tmp_path / "page" / "report.md").read_text("utf-8")
    assert f"| Qubits | {', '.join(map(str, sorted(used)))} |" in text


def test_the_same_command_takes_its_jobs_from_the_ledger(on_device: Run, tmp_path: Path):
    pytest.importorskip("qiskit_ibm_runtime")
    backend = "ibm:fake_manila?shots=64&seed=1&resilience=0"
    first = on_device(backend)
    jobs = record_in(tmp_path)["devices"][0]["jobs"]
    assert "jobs sent: 3; served from the ledger: 0" in first.stderr and jobs["count"] == 3
    assert jobs["circuits"] == 5 and jobs["executions"] == 5 * 64  # a prompt of 3, then 2 tokens
    text = (tmp_path / "page" / "report.html").read_text("utf-8")
    again = on_device(backend)
    assert "jobs sent: 0; served from the ledger: 3" in again.stderr
    assert record_in(tmp_path)["devices"][0]["jobs"] == jobs | {"from_ledger": 3}
    assert record_in(tmp_path)["expectations"] and "figure" not in re.findall(r'src="(?!data:)([^"]*)"', text)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash reads the command")
@pytest.mark.parametrize("prompt", ["\n", "a b", "it's\n\ttwo\\nlines", "é\x1b$HOME"])
def test_the_command_is_one_line_and_a_shell_reads_it_back(prompt: str):
    line = command(DeviceRun(Path("runs/a b"), Path("out"), "ibm:fake_manila?shots=64", prompt, 3, 0, 0.8, None))
    assert line.isprintable()
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    given = words.decode().split("\0")
    assert given[2] == "runs/a b" and given[given.index("--prompt") + 1] == prompt


def test_tiles_are_named_with_their_calibration(on_device: Run, tmp_path: Path):
    pytest.importorskip("qiskit_ibm_runtime")
    result = on_device("ibm:fake_torino?shots=64&seed=1&resilience=0&tiles=3", tokens=2)
    assert result.exit_code == 0, result.output
    [device] = record_in(tmp_path)["devices"]
    assert len(device["tiles"]) == 3 and sum(tile["circuits"] for tile in device["tiles"]) == 3 + 1
    used = [qubit for tile in device["tiles"] for qubit in tile["qubits"]]
    assert len(set(used)) == 9 and sorted(used) == [each["qubit"] for each in device["calibration"]["qubits"]]
    assert "| Tiles | 3, on qubits" in (tmp_path / "page" / "report.md").read_text("utf-8")


def test_a_mitigation_is_named(on_device: Run, tmp_path: Path):
    pytest.importorskip("qiskit_ibm_runtime")
    assert on_device("aer?noise=fake_manila&shots=128&seed=1&mitigation=trex", tokens=1).exit_code == 0
    assert "| Mitigation | trex |" in (tmp_path / "page" / "report.md").read_text("utf-8")


def test_a_fall_is_told_and_never_called_the_devices(on_device: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("qiskit_ibm_runtime")
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "")
    monkeypatch.setattr("qiskit_ibm_runtime.accounts.management._DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(tmp_path / "x"))
    result = on_device(f"ibm:ibm_nowhere?budget=1s -> {SAMPLED}")
    assert result.exit_code == 0, result.output
    assert "failed, statevector?seed=1&shots=128 is next." in " ".join(result.output.split())
    record = record_in(tmp_path)
    assert record["calls"] == {"statevector?seed=1&shots=128": 3} and len(record["falls"]) == 3
    assert [device["name"] for device in record["devices"]] == ["statevector"]
    text = (tmp_path / "page" / "report.md").read_text("utf-8")
    assert "| Fallbacks | 3 |" in text and "## Fallbacks" in text


def test_what_a_model_writes_is_text_on_the_page(on_device: Run, tmp_path: Path):
    assert on_device(SAMPLED, tokens=40).exit_code == 0
    html = (tmp_path / "page" / "report.html").read_text("utf-8")
    assert "<b>" not in html and "&lt;b&gt;" in html
    assert html.count("<table>") == html.count("</table>") == 4
    rows = re.findall(r"<tr>(.*?)</tr>", html[html.index("Tokens</h2>") : html.index("Heads</h2>")], re.DOTALL)
    assert len(rows) == 41 and {row.count("<td>") for row in rows[1:]} == {8}


@pytest.mark.parametrize(
    ("backend", "arguments", "message"),
    [
        ("statevector", (), "error: statevector is the exact engine itself"),
        ("nowhere", (), "error: Unknown backend 'nowhere'"),
        (SAMPLED, ("--temperature", "-1"), "error: temperature and max_new_tokens must be finite"),
        (SAMPLED, ("--prompt", "Z"), "error: "),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(on_device: Run, tmp_path: Path, backend, arguments, message):
    result = on_device(backend, *arguments)
    assert result.exit_code == 2 and result.stderr.splitlines()[-1].startswith(message)
    assert not (tmp_path / "page").exists()


def test_a_model_without_circuits_has_nothing_to_run(qattn: Run, tmp_path: Path):
    tokenizer = CharTokenizer("\nab")
    GPT(GPTConfig(tokenizer.vocab_size, 4, 1, 1, 8, heads="classical:1")).save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    result = qattn("run-on-device", tmp_path, "--backend", SAMPLED, "--out", tmp_path / "page")
    assert result.exit_code == 2 and "has no quantum head" in result.stderr


def test_another_report_is_not_overwritten(on_device: Run, tmp_path: Path):
    assert on_device(SAMPLED).exit_code == 0
    before = (tmp_path / "page" / "report.json").read_bytes()
    other = on_device(SAMPLED, "--seed", 7)
    assert other.exit_code == 2 and "has a report with seed = 0, not 7; give another --out" in other.stderr
    assert (tmp_path / "page" / "report.json").read_bytes() == before
    (tmp_path / "page" / "report.json").write_text('{"format": "something else"}')
    assert "is no report of a device" in on_device(SAMPLED).stderr
    (tmp_path / "page" / "report.json").write_text("{")
    assert "is damaged" in on_device(SAMPLED).stderr
    (tmp_path / "page" / "report.json").unlink()
    assert "exists and is no report of a device" in on_device(SAMPLED).stderr


def test_a_device_that_computed_nothing_is_not_in_the_title(on_device: Run, tmp_path: Path):
    """A fallback that was not needed, and a device of a group are there by what they did."""
    assert on_device(f"{SAMPLED} -> density_matrix").exit_code == 0
    assert (tmp_path / "page" / "report.md").read_text("utf-8").startswith("# A text generated on statevector\n")


def test_a_group_is_estimated_by_what_each_device_is_to_compute(on_device: Run, tmp_path: Path):
    """Each device's table holds its share, not all circuits."""
    names = ("statevector?dedupe=off&seed=1&shots=100", "density_matrix?dedupe=off&seed=2&shots=100")
    result = on_device(" + ".join(names), tokens=6)
    assert result.exit_code == 0, result.output
    assert all(name in result.stderr for name in names)
    told = [int(line.split()[-1]) for line in result.stderr.splitlines() if line.startswith("circuits")]
    assert len(told) == 2 and sum(told) == record_in(tmp_path)["estimate"]["circuits"] and 0 not in told
