"""``qattn export``: a trained model as one file for other runtimes and small devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from qiskit_qattn.cli.generate import load_run


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or a saved model's folder.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The file to write.", show_default=False)],
    format: Annotated[  # noqa: A002 - the flag's name
        Literal["onnx", "torch"], typer.Option(help="onnx, or torch for a file of torch.export.")
    ] = "onnx",
    quantize: Annotated[
        Literal["int8"] | None,
        typer.Option(help="Round the classical weights to 8 bits; circuits stay exact.", show_default="no rounding"),
    ] = None,
) -> None:
    """Write the model of RUN as a graph from tokens to logits, with its vocabulary, and run it once to check it.

    The batch size and the length of the context may vary. The graph contains circuits as matrices.
    """
    from qiskit_qattn import __version__
    from qiskit_qattn.nn import quantize as forms
    from qiskit_qattn.nn.export import largest_difference, to_bytes
    from qiskit_qattn.training.files import write_bytes

    model, tokenizer = load_run(run)
    record = {
        "characters": tokenizer.characters,
        "block_size": model.config.block_size,
        "heads": model.config.heads,
        "quantization": quantize,
        "written_by": f"qiskit-qattn {__version__}",
    }
    chosen = model if quantize is None else forms.quantize(model, quantize)
    content = to_bytes(chosen, format, record)
    difference = largest_difference(model, content, format)
    write_bytes(out, content)
    typer.echo(f"{out}: {len(content) / 1e6:.3g} MB; its logits differ from the model's by at most {difference:.1g}.")
