"""Models with quantum heads, each process training on its share of a batch: ``test_distributed.py`` starts it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import qiskit_qattn as qa

STEPS = 3
Loss = Callable[[nn.Module, Tensor], Tensor]  # of a model on some rows of its data


def gpt() -> nn.Module:
    return qa.GPT(
        qa.GPTConfig(
            vocab_size=11, block_size=6, n_layer=2, n_head=4, n_embd=16, heads="qisa:1,zz:2,classical:1", num_qubits=2
        )
    )


def gpt_with_frozen_circuits() -> nn.Module:
    model = gpt()
    for weight in model.circuit_parameters():
        weight.requires_grad_(False)
    return model


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model = nn.Sequential(nn.Embedding(11, 16), stack, nn.Linear(16, 11))
    qa.replace_attention(model, heads="qisa:2,classical:2")
    return model


def hugging_face() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    import qiskit_qattn.hf  # noqa: F401 - registers the attention

    config = LlamaConfig(
        vocab_size=11,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8,
    )
    model = LlamaForCausalLM(config)
    qa.replace_attention(model, heads="qisa:2,classical:2")
    return model


def gpt_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    return model(tokens[:, :-1], tokens[:, 1:])[1]


def encoder_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    return functional.cross_entropy(model(tokens[:, :-1]).transpose(1, 2), tokens[:, 1:])


def hugging_face_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    return model(input_ids=tokens, labels=tokens).loss


CASES: dict[str, tuple[Callable[[], nn.Module], Loss]] = {
    "gpt": (gpt, gpt_loss),
    "sharded gpt": (gpt, gpt_loss),
    "gpt with frozen circuits": (gpt_with_frozen_circuits, gpt_loss),
    "encoder": (encoder, encoder_loss),
    "hugging face": (hugging_face, hugging_face_loss),
}


def train(name: str, wrap: Callable[[nn.Module], nn.Module], rows: slice) -> dict[str, Any]:
    """Return the losses on some rows of a case's batch, and the weights and gradients after a few steps."""
    make, loss_of = CASES[name]
    torch.manual_seed(0)
    plain = make()
    tokens = torch.randint(11, (8, 7), generator=torch.Generator().manual_seed(1))[rows]
    model = wrap(plain)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, tokens)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    gradients = {key: weight.grad for key, weight in plain.named_parameters() if weight.grad is not None}
    return {"losses": losses, "weights": whole(plain.state_dict()), "gradients": whole(gradients)}


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of which each process may hold a shard."""
    return {key: each.full_tensor() if isinstance(each, DTensor) else each for key, each in tensors.items()}


def sharded(model: nn.Module) -> nn.Module:
    """Shard a GPT over all processes but for the angles of its circuits, as docs/how-to/scale-out.md does."""
    circuits = set(model.circuit_parameters())
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    for part in (*model.blocks, model):
        fully_shard(part, mesh=mesh, ignored_params=circuits)

    def average(weight: nn.Parameter) -> None:
        distributed.all_reduce(weight.grad)
        weight.grad /= distributed.get_world_size()

    for weight in circuits:
        weight.register_post_accumulate_grad_hook(average)
    return model


def main(folder: str, *names: str) -> None:
    distributed.init_process_group("gloo")
    share = slice(distributed.get_rank(), None, distributed.get_world_size())
    found = {name: train(name, sharded if "sharded" in name else DistributedDataParallel, share) for name in names}
    torch.save(found, f"{folder}/{distributed.get_rank()}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
