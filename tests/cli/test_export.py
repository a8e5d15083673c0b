from __future__ import annotations

import json
import re

import onnxruntime
import pytest
import torch

from qiskit_qattn.nn.export import METADATA
from qiskit_qattn.training.tokenizer import CharTokenizer


@pytest.mark.parametrize(
    "options", [[], pytest.param(["--quantize", "int8"], marks=pytest.mark.more)], ids=["float", "int8"]
)
def test_a_file_has_the_vocabulary_and_the_logits_of_the_model(qattn, finished_run, tmp_path, options):
    found = qattn("export", finished_run, "--out", tmp_path / "model.onnx", *options)
    assert found.exit_code == 0, found.output
    difference = float(re.search(r"by at most (\S+)\.\n$", found.stdout)[1])
    assert difference < 1e-5 if not options else 1e-5 < difference < 0.1
    told = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    tokenizer = CharTokenizer.load(finished_run / "model" / "tokenizer.json")
    assert json.loads(told["characters"]) == tokenizer.characters
    assert json.loads(told["block_size"]) == 8
    assert json.loads(told["quantization"]) == (options[1] if options else None)


def test_torch_reads_its_own_format(qattn, finished_run, tmp_path):
    found = qattn("export", finished_run, "--format", "torch", "--out", tmp_path / "model.pt2")
    assert found.exit_code == 0, found.output
    program = torch.export.load(tmp_path / "model.pt2", extra_files=(files := {METADATA: ""}))
    assert program.module()(torch.zeros(3, 5, dtype=torch.long)).shape == (
        3,
        5,
        len(json.loads(files[METADATA])["characters"]),
    )


def test_nothing_is_written_for_a_folder_without_a_model(qattn, tmp_path):
    found = qattn("export", tmp_path, "--out", tmp_path / "model.onnx")
    assert found.exit_code == 2 and found.stderr.startswith("error: No model in")
    assert not list(tmp_path.iterdir())
