"""The page of a generation on a device: ``report.html`` and ``report.md``, and its figure, made of ``report.json``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qiskit_qattn.backends.spec import PLUS
from qiskit_qattn.errors import counted
from qiskit_qattn.evaluation.device_run.figure import run_figure
from qiskit_qattn.evaluation.device_run.record import RECORD, DeviceRun
from qiskit_qattn.evaluation.drawing import drawn, visible, write_figures
from qiskit_qattn.evaluation.latex import write_document
from qiskit_qattn.evaluation.rendering import (
    block,
    code,
    escaped,
    heads_text,
    html_page,
    number,
    pairs,
    table,
    write_json,
)
from qiskit_qattn.training.files import write_text

FIGURE = "figure"
_MOST_ROWS = 100  # of the table of tokens; all are in report.json
_CAPTION = (
    "(a) Probability of each token of the text on the device, minus that on the exact engine after the same text. (b)"
    " Total variation distance between the two distributions of the next token. Grey: what the exact circuits give with"
    " the device's number of shots. (c) Expectations that the circuits returned,"
    " with one standard error, against the exact ones of the same inputs. (d) Root mean square difference of the"
    " expectations by layer, kind and head."
)
_NOTE = (
    "This is one text of one model. It says how far the values of this device were from exact ones on that day, for"
    " these circuits, and what that did to the distributions of the next token. It does not say how the device is on"
    " another day, whether the text is better or worse, or whether the quantum heads are of use to the model: that"
    " takes many texts, and the classical controls of `qattn compare`."
)


def write_report(run: DeviceRun, record: dict[str, Any]) -> Path:
    """Write the report of a record into its folder, and return the path of the page.

    Raises:
        RunFolderError: If it cannot be written.
        MissingDependencyError: If matplotlib is not installed.
    """
    record["command"] = command(run)
    write_json(run.out / RECORD, record)
    figure = run_figure(record)
    write_figures(run.out, {FIGURE: figure})
    text = render_markdown(record)
    write_document(run.out, text)
    image = f"{FIGURE}.svg"
    page = html_page(title(record), text.replace(f"({FIGURE}.png)", f"({image})"), {image: drawn(figure, "svg")})
    write_text(run.out / "report.html", page)
    return run.out / "report.html"


def command(run: DeviceRun) -> str:
    """Return the command line of a run."""
    parts = ["qattn", "run-on-device", str(run.run), "--backend", run.backend, "--prompt", run.prompt]
    parts += ["--tokens", str(run.tokens), "--seed", str(run.seed), "--temperature", f"{run.temperature:g}"]
    parts += [] if run.top_k is None else ["--top-k", str(run.top_k)]
    return " ".join(map(_word, [*parts, "--out", str(run.out)]))


def _word(text: str) -> str:
    r"""Return a word of a command line, on one line: bash and zsh read ``$'\n'`` as a line break."""
    if text.isprintable():
        return shlex.quote(text)
    escapes = {"'": r"\'", "\\": r"\\"}
    letters = (escapes.get(c) or (c if c.isprintable() else repr(c)[1:-1]) for c in text)
    return f"$'{''.join(letters)}'"


def title(record: Mapping[str, Any]) -> str:
    """Return the title of a page: the devices that computed something, of a chain."""
    used = {name for label in record["calls"] for name in label.split(f" {PLUS} ")}
    names = [device["name"] for device in record["devices"] if not used or device["backend"] in used]
    return f"A text generated on {' and '.join(names) or ' and '.join(sorted(used))}"


def render_markdown(record: dict[str, Any]) -> str:
    """Return a record as one Markdown document."""
    settings, devices = record["settings"], record["devices"]
    shown = record["tokens"][:_MOST_ROWS]
    parts = [
        f"# {escaped(title(record))}",
        *_no_hardware(devices),
        block(settings["prompt"] + record["text"], ""),
        f"{_last(len(record['tokens']))} generated, after a prompt of {len(settings['prompt']):,}.",
        _facts(record),
        "## Difference from the exact engine",
        _findings(record),
        f"![{_CAPTION}]({FIGURE}.png)\n\n*{_CAPTION}*",
        "## What may be concluded",
        _NOTE,
        "## Tokens",
        _tokens(record, shown),
        *([] if len(shown) == len(record["tokens"]) else [f"The other tokens are in {code(RECORD)}."]),
        "## Heads",
        _heads(record),
        *(part for device in devices for part in _calibration(device)),
        *_falls(record),
        "## Reproduce",
        block(record["command"], "sh"),
        "Jobs that were paid for are taken from the ledger; the same command sends only what is missing.",
        "## Versions and machine",
        pairs({**record["versions"], **record["machine"]}),
    ]
    return "\n\n".join(parts) + "\n"


def _last(n: int) -> str:
    return "The last character was" if n == 1 else f"The last {n:,} characters were"


def _no_hardware(devices: list[dict[str, Any]]) -> list[str]:
    """Return a sentence where no quantum processor took part."""
    if any(device["is_hardware"] for device in devices):
        return []
    return ["**No quantum processor took part:** all circuits were simulated."]


def _facts(record: dict[str, Any]) -> str:
    """Return the table of what ran where, when and at what cost."""
    settings = record["settings"]
    of_top = "" if settings["top_k"] is None else f", among the {settings['top_k']} likeliest"
    facts = {
        "Model": f"{heads_text(record['heads'])}; circuits of {counted(record['num_qubits'], 'qubit')}; "
        f"{record['run']}",
        "Sampling": f"seed {settings['seed']}, temperature {settings['temperature']:g}{of_top}",
        "Backend": record["backend"],
    }
    for device in record["devices"]:
        of = f" ({device['name']})" if len(record["devices"]) > 1 else ""
        facts |= {name + of: value for name, value in _device_facts(device, record).items() if value}
    if calls := record["calls"]:
        facts["Calls of heads"] = "; ".join(f"{count:,} on {name}" for name, count in calls.items())
        facts["Fallbacks"] = f"{len(record['falls']):,}" if record["falls"] else "none"
    return table(["", ""], [[escaped(name), escaped(value)] for name, value in facts.items()])


def _device_facts(device: dict[str, Any], record: dict[str, Any]) -> dict[str, str]:
    """Return the facts of one device."""
    jobs, calibration = device["jobs"], device["calibration"]
    facts = {"Shots per measurement basis": "none: exact values" if not device["precision"] else _shots(device)}
    facts |= {"Mitigation": _mitigation(device), "Tiles": _tiles(device)}
    if calibration is not None:
        facts["Calibration"] = calibration["date"] or "no date given"
        facts["Qubits"] = ", ".join(str(each["qubit"]) for each in calibration["qubits"])
    if jobs is None:
        return {"Date": record["created"], **facts}
    source = f", {jobs['from_ledger']:,} of them from the ledger" if jobs["from_ledger"] else ""
    about = "about " if jobs["is_estimate"] else ""
    facts = {"Date": f"{jobs['first']} to {jobs['last']}", **facts, "Jobs": f"{jobs['count']:,}{source}"}
    facts["Circuits"] = f"{jobs['circuits']:,}, with {jobs['executions']:,} executions in all"
    if jobs["is_paid"]:
        facts["Processor time"] = f"{about}{jobs['seconds']:,.3g} s" if jobs["seconds"] else "not reported"
        facts["Price"] = "not published" if jobs["usd"] is None else f"{about}{jobs['usd']:,.4g} USD"
    else:
        facts["Price"] = "free: simulated in this process"
        if jobs["seconds_estimated"]:
            facts["Processor time"] = f"none; about {jobs['seconds_estimated']:,.3g} s on the device itself"
    return facts


def _shots(device: dict[str, Any]) -> str:
    if not device["shots"]:
        return f"as needed for a standard error of {device['precision']:g}"
    return f"{device['shots']:,}"


def _mitigation(device: dict[str, Any]) -> str:
    """Return what was done against errors."""
    options = device["options"]
    if device["mitigation"] is not None:
        return device["mitigation"]
    named = [f"{name}={options[name]}" for name in ("resilience", "twirling", "dd") if name in options]
    return ", ".join(named) or ("resilience=1, by default" if device["name"].startswith("ibm:") else "none")


def _tiles(device: dict[str, Any]) -> str:
    """Return the sets of qubits that circuits were measured on, where several may run side by side."""
    tiles = ["-".join(map(str, tile["qubits"])) for tile in device["tiles"]]
    return f"{len(tiles)}, on qubits {', '.join(tiles)}" if tiles else ""


def _findings(record: dict[str, Any]) -> str:
    """Return the figures of all tokens in sentences."""
    found = record["summary"]
    same = (
        f"With the same random numbers and after the same text, the exact engine draws the same token in"
        f" {found['same']:,} of {found['tokens']:,} cases."
    )
    distance = (
        f" The distributions of the next token differ by a total variation distance of {found['tvd']:.4f} on average"
        f" (Kullback–Leibler divergence {found['kl']:.2g} nats)."
    )
    if found["share"] is None:
        return same + distance
    shots = (
        f" Exact circuits with the same number of shots differ by {found['tvd_shots']:.4f} on average over"
        f" {record['samples']} simulated runs, and by at most {found['tvd_shots_95']:.4f} in 95 % of them."
    )
    if found["tvd"] > found["tvd_shots_95"]:
        verdict = " So shots alone do not explain the difference: errors of the device are visible."
    else:
        verdict = " So shots alone may explain the difference: no error of the device is visible here."
    return same + distance + shots + verdict


def _tokens(record: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    sampled = bool(record["samples"])
    shots = ["TVD of shots, 95 %"] if sampled else []
    head = ["", "Token", "p, device", "p, exact", "TVD", *shots, "KL, nats", "Exact draw"]
    lines = []
    for place, row in enumerate(rows, start=1):
        error = f" ± {row['error']:.4f}" if sampled else ""
        same = row["token"] == row["exact_token"]
        cells = [str(place), code(visible(row["text"])), f"{row['p_device']:.4f}", f"{row['p_exact']:.4f}{error}"]
        cells += [f"{row['tvd']:.4f}", *([f"{row['tvd_shots_95']:.4f}"] if sampled else []), f"{row['kl']:.2g}"]
        lines.append([*cells, "same" if same else code(visible(row["exact_text"]))])
    about = "p is the probability of the token that the device drew." + (
        " After ± stands one standard deviation of exact circuits with the same shots." if sampled else ""
    )
    return f"{table(head, lines)}\n\n{about}"


def _heads(record: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['layer']}, {code(row['kind'])} {row['head']}",
            f"{row['values']:,}",
            f"{row['rms']:.4f}",
            number(row["rms_error"], "{:.4f}"),
            f"{row['largest']:.4f}",
            number(row["outside"], "{:.0%}"),
            f"{row['slope']:.3f}" + ("" if row["slope_error"] is None else f" ± {row['slope_error']:.3f}"),
        ]
        for row in record["heads_compared"]
    ]
    head = ["Layer, head", "Values", "Rms difference", "Rms error bar", "Largest", "Beyond 2 σ", "Slope"]
    about = (
        "Expectations of Pauli strings against the exact ones of the same inputs. Without errors of the device the rms"
        " difference is that of the error bars, about 5 % of values lie beyond two of them, and the slope is 1; noise"
        " that is not mitigated makes it smaller."
    )
    return f"{table(head, rows)}\n\n{about}"


def _calibration(device: dict[str, Any]) -> list[str]:
    """Return the tables of the qubits and gates in use."""
    found = device["calibration"]
    if found is None or not found["qubits"]:
        return []
    qubits = [
        [
            str(each["qubit"]),
            *(number(each[key] and 1e6 * each[key], "{:,.0f}") for key in ("t1", "t2")),
            number(each["readout"], "{:.4f}"),
        ]
        for each in found["qubits"]
    ]
    gates = [
        [code(each["name"]), ", ".join(map(str, each["qubits"])), number(each["error"], "{:.4f}")]
        for each in found["gates"]
    ]
    return [
        f"## Calibration of {escaped(device['name'])}",
        f"As the device reported it on {found['date']}, for the qubits and two-qubit gates in use.",
        table(["Qubit", "T1, µs", "T2, µs", "Readout error"], qubits),
        *([table(["Gate", "Qubits", "Error"], gates)] if gates else []),
    ]


def _falls(record: dict[str, Any]) -> list[str]:
    if not record["falls"]:
        return []
    head = ["Layer", "Kind", "Call", "From", "To", "Reason"]
    keys = ("layer", "kind", "call", "link", "to", "reason")
    return ["## Fallbacks", table(head, [[escaped(str(fall[key])) for key in keys] for fall in record["falls"]])]
