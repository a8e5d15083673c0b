r"""A GPT as one graph of plain operations: for torch.export, and in ONNX for other runtimes.

The graph is that of the copy for inference: from tokens, shape ``(B, T)``, to logits, shape ``(B, T, vocab_size)``,
where B and T may vary. Circuits are part of it as the matrices that :func:`~qiskit_qattn.nn.inference.inference` forms.
"""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from qiskit_qattn.errors import ConfigError, missing_dependency
from qiskit_qattn.nn.gpt import Decoder
from qiskit_qattn.nn.inference import inference, runs_elsewhere
from qiskit_qattn.nn.placement import quantum_parts

Format = Literal["onnx", "torch"]
METADATA = "qattn.json"  # of a file of torch.export: where the record stands in it
_LOUD = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")  # loggers that tell of what a user cannot change


class _Logits(nn.Module):
    """Tokens to logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens)[0]
        return logits


def exported(model: Decoder) -> ExportedProgram:
    """Return the graph of a GPT from ``tokens``, shape ``(B, T)``, T at most ``block_size``, to logits.

    Args:
        model: A :class:`~qiskit_qattn.GPT`, or a copy of one for inference.

    Raises:
        ConfigError: For circuits on another backend than the exact engine, sampled attention, and heads of a user's own
            whose code torch cannot trace.
    """
    for part in quantum_parts(model):
        if runs_elsewhere(part.module):
            name = "an estimator" if (place := part.module.execution.place) is None else place.name
            raise ConfigError(
                f"{part.kind} in {part.name!r} runs on {name}: only circuits on the exact engine can be part of a "
                f"graph. Move the model with to_backend('statevector') first."
            )
    if model.config.sampling is not None:
        raise ConfigError(
            f"Attention sampled by {model.config.sampling!r} draws keys at random, which a graph of plain operations "
            f"does not do: set sampling to None in the model's config.json to export it with exact attention."
        )
    most = model.config.block_size
    tokens = torch.zeros(2, min(3, most), dtype=torch.long, device=model.wte.weight.device)
    lengths = {0: Dim("batch", min=1), **({1: Dim("steps", min=1, max=most)} if most > 1 else {})}
    traced = _Logits(inference(model)).eval()
    for module in traced.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:  # torch.export.save warns of parts of a tensor, and of other orders of axes
                module._buffers[name] = buffer.clone(memory_format=torch.contiguous_format)
    with torch.no_grad(), _quiet():
        try:
            program = torch.export.export(traced, (tokens,), dynamic_shapes={"tokens": lengths})
        except RuntimeError as error:
            raise ConfigError(f"torch.export cannot trace the model: {str(error).splitlines()[0]}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def to_bytes(model: Decoder, format: Format, record: Mapping[str, Any]) -> bytes:  # noqa: A002 - the option's name
    """Return what a file of a GPT's graph holds.

    Args:
        model: As for :func:`exported`.
        format: ``torch``, which ``torch.export.load`` reads, or ``onnx``.
        record: What else the file says of itself: in ONNX a metadata entry of JSON for each key, otherwise the extra
            file :data:`METADATA`.

    Raises:
        ConfigError: As for :func:`exported`, and for heads that ONNX has no operations for.
        MissingDependencyError: If a package that writes ONNX is not installed.
    """
    program = exported(model)
    if format == "torch":
        torch.export.save(program, file := io.BytesIO(), extra_files={METADATA: json.dumps(record)})
        return file.getvalue()
    try:
        with torch.no_grad(), _quiet():
            found = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=["tokens"], output_names=["logits"]
            )
    except ModuleNotFoundError as error:
        raise missing_dependency(error.name or "onnxscript", "export") from error
    except torch.onnx.OnnxExporterError as error:
        if (part := _complex_part(program)) is not None:
            raise ConfigError(
                f"{part} computes with complex numbers, for which ONNX has no operations. The format torch takes them."
            ) from error
        raise ConfigError(f"The model cannot be exported to ONNX: {_innermost(error)}") from error
    assert found is not None
    proto = found.model_proto
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.functions):
        del part.metadata_props[:]  # which line of torch or Python each operation comes from
    for key, value in record.items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    content: bytes = proto.SerializeToString()
    return content


def largest_difference(model: Decoder, content: bytes, format: Format) -> float:  # noqa: A002 - the option's name
    """Return by how much logits of a file differ at most from those of a GPT, over batches and lengths that vary.

    Args:
        model: The model that was exported.
        content: What :func:`to_bytes` gave; ONNX is run by onnxruntime.
        format: Its format.

    Raises:
        MissingDependencyError: If onnxruntime is not installed.
    """
    if format == "torch":
        program: Any = torch.export.load(io.BytesIO(content)).module()
    else:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise missing_dependency("onnxruntime", "export") from error
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        program = lambda tokens: torch.from_numpy(session.run(None, {"tokens": tokens.numpy()})[0])  # noqa: E731
    fixed, config = inference(model).cpu(), model.config
    draw = torch.Generator().manual_seed(0)
    found = 0.0
    with torch.no_grad(), _quiet():
        for shape in ((1, 1), (3, config.block_size), (2, (config.block_size + 1) // 2)):
            tokens = torch.randint(config.vocab_size, shape, generator=draw)
            found = max(found, float((program(tokens) - fixed(tokens)[0]).abs().max()))
    return found


def _complex_part(program: ExportedProgram) -> str | None:
    """Return the first kind of head, or other part of a graph, that computes with complex numbers."""
    for node in program.graph.nodes:
        if isinstance(value := node.meta.get("val"), Tensor) and value.is_complex():
            paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
            kinds = [re.split(r"\.(?:maps|scores)\.", path)[1:] for path in paths]
            return next((kind[0].split(".")[0] for kind in kinds if kind), "a part of it")
    return None


def _innermost(error: BaseException) -> str:
    """Return the first line of the error that an error follows from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).splitlines()[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporters say of themselves."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)  # torch 2.13 copies its own
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
