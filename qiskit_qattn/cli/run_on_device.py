"""``qattn run-on-device``: a text from a device, compared with the exact engine, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from qiskit_qattn.cli.devices import Quote, cost_table, open_devices, text_row
from qiskit_qattn.cli.generate import load_model
from qiskit_qattn.cli.help import say
from qiskit_qattn.cli.options import TRAINING, require
from qiskit_qattn.cli.progress import TokenTime, watch_jobs
from qiskit_qattn.errors import BackendError

if TYPE_CHECKING:
    from torch import Tensor

    from qiskit_qattn.backends.registry import Backend

_AGAIN = "The same command continues, and jobs that were sent are taken from the ledger."


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or a saved model's folder.", show_default=False)
    ],
    backend: Annotated[str, typer.Option(help="The device: a backend string, or a chain of them, 'A -> B'.")],
    prompt: Annotated[str, typer.Option(help="The beginning of the text.", show_default="a line break")] = "\n",
    tokens: Annotated[int, typer.Option(help="Number of tokens to generate.", min=1, max=10**6)] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the sampling of tokens.", min=0, max=2**32 - 1)] = 0,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0: the most likely token.")] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(help="Sample from the k most likely tokens.", min=1, show_default="all")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of the report.", show_default="RUN-device")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to any cost of a paid device, unasked.")] = False,
) -> None:
    """Generate a text with the model of RUN on a device, and compare it with the exact engine token by token.

    The cost is shown first; a paid device gets nothing until you agree. The report is one page, with the device, its
    calibration, qubits, shots, cost and error bars. The same command with the same --out takes the jobs that were paid
    for from the ledger, so that it may be interrupted.
    """
    require(TRAINING, "train")
    from qiskit_qattn.backends.several import Group
    from qiskit_qattn.evaluation.device_cost import generation_cost
    from qiskit_qattn.evaluation.device_run.record import DeviceRun, check_compared, check_out, make_record
    from qiskit_qattn.evaluation.device_run.report import write_report
    from qiskit_qattn.evaluation.device_run.trace import traced
    from qiskit_qattn.training.checkpoint import find_model

    folder = out or run.parent / f"{run.resolve().name}-device"
    asked = DeviceRun(run, folder, backend, prompt, tokens, seed, temperature, top_k)
    model, tokenizer, ids = load_model(run, prompt)
    settings = asked.settings(find_model(run))
    check_out(asked, settings)
    model.stream(ids, tokens, **asked.options)  # checks the options
    row = text_row(ids.shape[1], tokens)

    def cost(link: Backend) -> Quote:  # of all calls, also where other devices of a group are to share them
        estimate = generation_cost(model, link, ids, tokens)
        return cost_table(link, estimate, row), estimate.first

    with open_devices(backend, yes=yes, cost=cost, ask=True) as (place, estimators):
        first = next(link for _, link in place.links if not isinstance(link, BackendError))
        estimate = generation_cost(model, first, ids, tokens)
        if isinstance(first, Group) or not any(each.device.paid for each in estimators):
            devices = first.backends if isinstance(first, Group) else [first]
            for each in devices:
                share = estimate.devices.get(each.name, estimate)
                Console(stderr=True, highlight=False).print(cost_table(each, share, row))
        with model.to_backend(place):
            check_compared(model, place.name)
            try:
                with watch_jobs() as write:
                    write(prompt)
                    time = TokenTime(tokens)

                    def on_token(token: Tensor) -> None:  # (1, 1)
                        write(tokenizer.decode(token[0]))
                        time.token_done()

                    trace = traced(model, ids, tokens, on_token, **asked.options)
                    write("\n")
            except BackendError as error:
                error.add_note(_AGAIN)
                raise
            except KeyboardInterrupt as stop:
                say(f"\nInterrupted. {_AGAIN}", err=True)
                raise typer.Exit(128 + getattr(stop, "signal", 2)) from stop
            record = make_record(asked, settings, model, tokenizer, ids, place, trace, estimate)
    say(f"report: {write_report(asked, record)}")
