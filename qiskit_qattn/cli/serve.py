"""``qattn serve``: trained models behind OpenAI's API."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from qiskit_qattn.cli.devices import Quote, cost_table, open_devices, text_row
from qiskit_qattn.cli.options import require
from qiskit_qattn.errors import ConfigError

if TYPE_CHECKING:
    from qiskit_qattn.backends.place import Place
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.serving.engine import Engine
    from qiskit_qattn.serving.settings import ModelSource, Settings

_PACKAGES = ("fastapi", "limits", "prometheus_client", "uvicorn")
_QUOTED = (8, 16)  # tokens of the prompt and of the text whose cost is shown


def _option(text: str, default: str | bool = False, panel: str = "Server") -> Any:
    return typer.Option(help=text, show_default=default, rich_help_panel=panel)


def command(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]MODEL",
            help="A run folder, a saved model's folder, or a name on the Hugging Face Hub; several get names.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None, _option("A TOML file with settings; variables QATTN_SERVE_NAME override it.")
    ] = None,
    host: Annotated[str | None, _option("Address to listen on; any but the loopback needs keys.", "127.0.0.1")] = None,
    port: Annotated[int | None, _option("Port to listen on; 0: a free one.", "8000")] = None,
    backend: Annotated[
        str | None, _option("Where circuits run: a backend string, or a chain, 'A -> B'.", "statevector", "Models")
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, _option("auto uses the GPU, if there is one.", "auto", "Models")
    ] = None,
    quantize: Annotated[
        Literal["int8"] | None, _option("int8: round the classical weights to 8 bits.", "none", "Models")
    ] = None,
    max_batch: Annotated[int | None, _option("Texts that are computed in one pass.", "32", "Models")] = None,
    max_queue: Annotated[int | None, _option("Texts that may wait; further ones are refused.", "256", "Models")] = None,
    keys: Annotated[Path | None, _option("A file of keys, made by qattn serve-keys.", panel="Guards")] = None,
    requests_per_minute: Annotated[int | None, _option("Limit for each key; 0: no limit.", "0", "Guards")] = None,
    tokens_per_minute: Annotated[int | None, _option("Limit for each key; 0: no limit.", "0", "Guards")] = None,
    max_tokens: Annotated[
        int | None, _option("Largest number of tokens that a request may ask for.", "1024", "Guards")
    ] = None,
    cors_origins: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin",
            help="Origin of web pages that may call the server; may be repeated.",
            rich_help_panel="Guards",
        ),
    ] = None,
    log_prompts: Annotated[bool | None, _option("Log prompts and answers.", panel="Guards")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to any cost of a paid device.")] = False,
) -> None:
    """Serve models: /v1/completions, /v1/chat/completions and /v1/models of OpenAI's API, /health and /metrics.

    On a paid device, the cost of a text is shown first, and nothing is sent without a budget in the backend string, as
    in ?budget=5usd, or --yes. On SIGTERM or Ctrl-C, the server ends after the answers that it has begun.
    """
    require(_PACKAGES, "serve")
    from qiskit_qattn.serving.app import create_app
    from qiskit_qattn.serving.engine import Engine
    from qiskit_qattn.serving.keys import Keys
    from qiskit_qattn.serving.settings import NAMES, resolve

    given = {name: value for name, value in context.params.items() if name in NAMES and value not in (None, [])}
    given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    settings = resolve(given, environment=os.environ, config_file=config)
    if not settings.models:
        raise ConfigError("No model to serve: give a run folder, a saved model's folder, or a name on the Hub.")
    found = Keys(settings.keys, os.environ)
    settings.check_guarded(bool(found))
    _log(settings)
    with ExitStack() as stack:
        bound = stack.enter_context(_bound(settings))
        places = {
            text: stack.enter_context(_opened(text, settings, yes))
            for text in dict.fromkeys(_backend(each, settings) for each in settings.models)
            if text
        }
        engines: dict[str, Engine] = {}
        for source in settings.models:
            model = _load(source, settings, places.get(_backend(source, settings)))
            engines[source.name] = Engine(model, max_batch=settings.max_batch, max_queue=settings.max_queue)
        _run(create_app(engines, settings, found), settings, bound)


def _backend(source: ModelSource, settings: Settings) -> str:
    return source.backend or settings.backend


def _load(source: ModelSource, settings: Settings, place: Place | str | None) -> Any:
    from qiskit_qattn.serving.models import load

    quantize: Any = source.quantize or settings.quantize or None  # load checks it
    model = load(source.source, backend=place, device=settings.device, quantize=quantize)
    model.name = source.name
    return model


@contextmanager
def _opened(text: str, settings: Settings, yes: bool) -> Iterator[Place]:
    """Yield the place of a backend string, after the cost of one text of each model was shown, if it is paid."""
    from rich.console import Group

    def cost(link: Backend) -> Quote:
        quotes = [_quote(source, settings, link) for source in settings.models if _backend(source, settings) == text]
        return Group(*(table for table, _ in quotes)), next((first for _, first in quotes if first is not None), None)

    with open_devices(text, yes=yes, cost=cost) as (place, _):
        yield place


def _quote(source: ModelSource, settings: Settings, link: Backend) -> Quote:
    """Return what one text of a model would cost on a backend; nothing is sent."""
    from torch import nn

    from qiskit_qattn.evaluation.device_cost import run_cost
    from qiskit_qattn.serving.batch import Batch

    model = _load(source, settings, "statevector?shots=1")  # its circuits can be moved, unlike exact ones
    prompt = min(_QUOTED[0], model.context // 2) or 1
    tokens = max(1, min(_QUOTED[1], model.context - prompt))

    def run() -> None:
        batch = Batch(model)
        batch.begin([[0] * prompt])
        for _ in range(tokens - 1):
            batch.step([0])

    counted = run_cost(nn.ModuleList(part.module for part in model.parts), link, run)
    return cost_table(link, counted, text_row(prompt, tokens)), counted.first


def _log(settings: Settings) -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("qiskit_qattn").setLevel(settings.log_level.upper())


@contextmanager
def _bound(settings: Settings) -> Iterator[socket.socket]:
    """Yield a socket at the server's address, which is bound before models are loaded.

    Raises:
        ConfigError: If there is no such address, or it is taken.
    """
    where = f"{settings.host}:{settings.port}"
    try:
        family, *_, address = socket.getaddrinfo(settings.host or None, settings.port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"Cannot listen on {where}: {error}.") from error
    with bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(address)
        except OSError as error:
            raise ConfigError(f"Cannot listen on {where}: {error.strerror}.") from error
        yield bound


def _run(app: Any, settings: Settings, bound: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT."""
    from qiskit_qattn.serving.connections import make_server

    bound.listen()  # who reads that it serves can connect
    host, port = bound.getsockname()[:2]
    typer.echo(f"Serving {', '.join(app.state.service.engines)} at http://{_in_url(host)}:{port}", err=True)
    # uvicorn raises the signal that stopped it once more, which is to end this function only.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        make_server(app, settings).run([bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
