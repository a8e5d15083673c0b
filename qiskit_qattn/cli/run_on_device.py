"""``qattn run-on-device``: a text from a device, compared with the exact engine, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from qiskit_qattn.cli.devices import Quote, cost_table, open_devices, text_row
from qiskit_qattn.cli.generate import load_model
from qiskit_qattn.cli.help import say
from qiskit_qattn.cli.messages import counting, watch_jobs
from qiskit_qattn.cli.options import TRAINING, require
from qiskit_qattn.cli.remaining import forecast_text
from qiskit_qattn.errors import BackendError

if TYPE_CHECKING:
    from torch import Tensor

    from qiskit_qattn.backends.registry import Backend

_AGAIN = "The same command continues; it takes the results of the jobs that were sent from the ledger."


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
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Agree to any cost of a paid device, without being asked.")
    ] = False,
) -> None:
    """Generate a text with the model of RUN on a device, and compare it with the exact engine token by token.

    The cost is shown first; nothing is sent to a paid device until you agree. The report is one page, with the device,
    its calibration, qubits, shots, cost and error bars. After an interruption, the same command with the same --out
    continues: it takes the results of the jobs that were sent from the ledger.
    """
    require(TRAINING, "train")
    from qiskit_qattn.backends.several import Group
    from qiskit_qattn.evaluation.device_cost import generation_cost
    from qiskit_qattn.evaluation.device_run.record import DeviceRun, check_compared, check_out, make_record
    from qiskit_qattn.evaluation.device_run.report import write_report
    from qiskit_qattn.evaluation.device_run.timing import token_seconds
    from qiskit_qattn.evaluation.device_run.trace import traced
    from qiskit_qattn.training.checkpoint import find_model

    folder = out or run.parent / f"{run.resolve().name}-device"
    asked = DeviceRun(
        run=run,
        out=folder,
        backend=backend,
        prompt=prompt,
        tokens=tokens,
        seed=seed,
        temperature=temperature,
        top_k=top_k,
    )
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
                if told := forecast_text(token_seconds(model, ids, tokens, place, **asked.options)):
                    say(told, err=True)
                with watch_jobs() as write:
                    write(prompt)
                    generated, compared = counting(tokens), counting(tokens, "tokens to compare")

                    def on_token(token: Tensor) -> None:
                        write(tokenizer.decode(token[0]))
                        generated()

                    trace = traced(model, ids, tokens, on_token, **asked.options)
                    write("\n")
                    record = make_record(
                        asked, settings, model, tokenizer, ids, place, trace, estimate, on_token=compared
                    )
            except BackendError as error:
                error.add_note(_AGAIN)
                raise
            except KeyboardInterrupt as stop:
                say(f"\nInterrupted. {_AGAIN}", err=True)
                raise typer.Exit(128 + getattr(stop, "signal", 2)) from stop
    say(f"report: {write_report(asked, record)}")
