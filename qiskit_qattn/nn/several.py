"""Programs on a group of devices: each computes its share of the rows of a call, all at the same time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from qiskit_qattn.backends.jobs.request import source_of, source_of_rows
from qiskit_qattn.backends.joint import Call, JointProgram, evaluate, not_compiled
from qiskit_qattn.backends.pub import Evaluation, PubProgram, values_of
from qiskit_qattn.backends.pub_jobs import Jobs, array_of
from qiskit_qattn.backends.several import Group, assigned
from qiskit_qattn.backends.spec import PLUS
from qiskit_qattn.backends.values import Answer
from qiskit_qattn.errors import BackendError
from qiskit_qattn.forks import cached_property
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.nn.audit import Audit
from qiskit_qattn.nn.link import Link

_SAMPLE = 64  # rows whose time on each device says how fast it is
_LOG = logging.getLogger("qiskit_qattn.backends")


class SharedProgram(JointProgram):
    """A circuit's program on the devices of a group, which share the rows of each call.

    A row's device is decided before anything is sent (:func:`~qiskit_qattn.backends.several.assigned`), and each device
    gets one job with its rows of all heads. All jobs are sent before one is waited for. Where a device fails, its share
    goes to the next of the group, unless its job may be on its way: it would be paid for twice, so the error is raised.
    A share that another device of the group has been sent before, by a run that was interrupted, stays there. The
    backward pass of a row runs on the device that computed its value. First derivatives only.

    Args:
        circuit: What to compute.
        group: The devices.
        audit: Where it is recorded which device computed what.

    Attributes:
        label: Names of the devices that computed the last call.
        answer: What they said besides the values of the last call.
    """

    def __init__(self, circuit: AttentionCircuit, group: Group, audit: Audit) -> None:
        super().__init__()
        self.group, self.audit, self.label, self.answer = group, audit, "", Answer()
        self.names = [name for name, _ in group.members]
        self.links = nn.ModuleList(Link(circuit, where) for _, where in group.members)
        self._circuit = circuit

    @property
    def job_key(self) -> int:
        """The same for all programs on the group."""
        return id(self.group)

    @cached_property
    def source(self) -> str:
        """What the circuit computes, the same on every device."""
        return source_of(self._circuit)

    def link(self, member: int) -> Link:
        """Return the program on a member of the group."""
        return cast(Link, self.links[member])

    def record(self, members: np.ndarray, answer: Answer) -> None:
        """Record the device of each row of a call, shape ``(N,)``, and what the devices said."""
        self.answer = answer
        used = np.unique(members) if len(members) else [0]
        self.label = f" {PLUS} ".join(self.names[member] for member in used)
        self.audit.row_labels = [self.names[member] for member in members]
        self.audit.rows.update(self.audit.row_labels)

    @staticmethod
    @not_compiled
    def together(calls: Sequence[Call]) -> list[Tensor]:
        """Return expectations, each of shape ``(..., B, M)``; inputs are heads', for amplitude encoding vectors.

        Raises:
            BackendError: Of the last device that could have computed a share.
        """
        heads = [_Head(cast(SharedProgram, program), inputs, weights) for program, inputs, weights in calls]
        waiting = _divided(heads)
        for share in waiting:
            share.stay()
        done: list[_Share] = []
        while waiting:
            for share in waiting:
                share.send()
            done += (measured := [share for share in waiting if share.receive()])
            waiting = [share for share in waiting if share not in measured]
        return _assembled(heads, done)


class _Head:
    """One head's part in a call.

    Attributes:
        program: The head's program.
        inputs: Its inputs, shape ``(..., B, D)``.
        weights: Its weights, shape ``(..., P)``.
        lead: The shape of its rows, ``(..., B)``.
    """

    def __init__(self, program: SharedProgram, inputs: Tensor, weights: Tensor) -> None:
        self.program, self.inputs, self.weights = program, inputs, weights
        self.lead = torch.broadcast_shapes(inputs.shape[:-1], (*weights.shape[:-1], 1))

    @cached_property
    def flat(self) -> tuple[Tensor, Tensor]:
        """Inputs, shape ``(N, D)``, and weights, shape ``(N, P)``, of each row."""
        inputs, weights = self.inputs.expand(*self.lead, -1), self.weights.unsqueeze(-2).expand(*self.lead, -1)
        return inputs.flatten(0, -2), weights.flatten(0, -2)

    @property
    def every(self) -> np.ndarray:
        """The numbers of all rows."""
        return np.arange(self.lead.numel())

    @cached_property
    def content(self) -> np.ndarray:
        """The numbers of each row, shape ``(N, D + P)``."""
        return np.concatenate([array_of(each) for each in self.flat], -1)

    @property
    def work(self) -> str:
        """What is computed, the same on every device and in every process."""
        return source_of_rows(self.program.source, self.content, None)

    def call(self, member: int, rows: np.ndarray) -> Call:
        """Return the call of some of its rows on a member of the group."""
        inputs, weights = (each[torch.from_numpy(rows).to(each.device)] for each in self.flat)
        if self.weights.ndim == 1:
            return self.program.link(member).call(inputs, self.weights)
        return self.program.link(member).call(inputs.unsqueeze(1), weights)

    def sample_on(self, member: int) -> list[Any]:
        """Return PUBs of some rows on a member of the group, which are made up, so that tokens do not matter."""
        program = self.program.link(member).program
        if not isinstance(program, PubProgram):
            return []
        return Jobs([program], [np.zeros((_SAMPLE, len(program.params)))]).pubs


@dataclass(frozen=True)
class _Piece:
    """Rows of one head."""

    head: _Head
    rows: np.ndarray

    @property
    def at(self) -> Tensor:
        """Their numbers as a tensor."""
        return torch.from_numpy(self.rows).to(self.head.inputs.device)


@dataclass(eq=False)
class _Share:
    """What one device computes of a call.

    Attributes:
        member: Number of the device in the group.
        pieces: Rows of each head, at least one.
        tried: The devices that failed.
        evaluation: Its job; None on an engine of this process.
        values: Its values, where an engine has computed them.
    """

    member: int
    pieces: list[_Piece]
    tried: set[int] = field(default_factory=set)
    evaluation: Evaluation | None = None
    values: list[Tensor] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return self.pieces[0].head.program.names

    @property
    def answers(self) -> list[Answer]:
        return [Answer() for _ in self.pieces] if self.evaluation is None else self.evaluation.answers

    def calls(self, member: int) -> list[Call]:
        return [piece.head.call(member, piece.rows) for piece in self.pieces]

    def evaluation_on(self, member: int) -> Evaluation | None:
        """Return its job on a device, None where a circuit has no program or an engine of its own."""
        programs = [piece.head.program.link(member).program for piece in self.pieces]
        return Evaluation(self.calls(member)) if all(isinstance(each, PubProgram) for each in programs) else None

    def stay(self) -> None:
        """Become a share of the device that has its job from before, if that is another than its own."""
        self.evaluation = self.evaluation_on(self.member)
        if self.evaluation is None or self.evaluation.jobs.held():
            return
        for member in range(len(self.names)):
            other = None if member == self.member else self.evaluation_on(member)
            if other is not None and other.jobs.held():
                _LOG.info("A share of %s stays on %s, which has its job.", self.names[self.member], self.names[member])
                self.member, self.evaluation = member, other
                return

    def send(self) -> None:
        """Send the job, to the next device if one fails; engines of this process compute later.

        Raises:
            BackendError: If no device takes it.
        """
        while True:
            try:
                for piece in self.pieces:
                    if (link := piece.head.program.link(self.member)).program is None:
                        raise BackendError(link.reason)
                if self.evaluation is None:
                    self.evaluation = self.evaluation_on(self.member)
                if self.evaluation is not None:
                    self.evaluation.jobs.send()
            except BackendError as error:
                self.fall(error)
            else:
                return

    def receive(self) -> bool:
        """Wait for the values; return False, with the next device in place of this one, if it fails.

        Raises:
            BackendError: If there is none.
        """
        try:
            if self.evaluation is None:  # on all rows: how an engine rounds depends on the size of a batch
                whole = evaluate([piece.head.call(self.member, piece.head.every) for piece in self.pieces])
                self.values = [table[piece.at] for table, piece in zip(whole, self.pieces, strict=True)]
            else:
                self.evaluation.measure()
        except BackendError as error:
            self.fall(error)
            return False
        return True

    def fall(self, error: BackendError) -> None:
        """Go to the next device of the group.

        Raises:
            BackendError: The error, if there is none, or if the job may be on its way.
        """
        if self.evaluation is not None and self.evaluation.jobs.held(cached=False):
            raise error
        self.tried.add(self.member)
        last, count = self.member, len(self.names)
        left = [each for i in range(1, count) if (each := (last + i) % count) not in self.tried]
        if not left:
            raise error
        self.member, self.evaluation = left[0], None
        for piece in self.pieces:
            audit = piece.head.program.audit
            audit.fall(audit.count, "forward", self.names[last], self.names[self.member], error)


def _divided(heads: Sequence[_Head]) -> list[_Share]:
    """Return the shares of the devices; heads whose circuit a device cannot take are a share of their own there."""
    group = heads[0].program.group
    recorded = any(hasattr(backend.estimator, "ledger") for backend in group.backends)
    shares = group.shares(heads[0].sample_on, "\n".join(head.work for head in heads) if recorded else "")
    devices = [assigned(head.content, shares) for head in heads]
    found = []
    for member in range(len(group.members)):
        pieces: dict[bool, list[_Piece]] = {True: [], False: []}
        for head, of in zip(heads, devices, strict=True):
            rows = np.flatnonzero(of == member)
            if len(rows) or not (len(of) or member):  # an empty call is the first device's
                pieces[head.program.link(member).program is not None].append(_Piece(head, rows))
        found += [_Share(member, some) for some in pieces.values() if some]
    return found


def _assembled(heads: Sequence[_Head], shares: Sequence[_Share]) -> list[Tensor]:
    """Return the expectations of each head, shape ``(..., B, M)``, and record which device computed which rows."""
    jobs = [(share, share.evaluation) for share in shares if share.evaluation is not None]
    if jobs:
        for (share, _), values in zip(jobs, values_of([evaluation for _, evaluation in jobs]), strict=True):
            share.values = values
    found = []
    for head in heads:
        mine = [
            (share.member, piece.rows, table.flatten(0, -2).to(head.inputs), answer)  # the table is (n, M)
            for share in shares
            for piece, table, answer in zip(share.pieces, share.values, share.answers, strict=True)
            if piece.head is head
        ]
        members = np.concatenate([np.full(len(rows), member) for member, rows, _, _ in mine])  # (N,)
        order = np.argsort(np.concatenate([rows for _, rows, _, _ in mine]))
        table = torch.cat([table for _, _, table, _ in mine])[torch.from_numpy(order).to(head.inputs.device)]
        errors = [np.zeros(table.shape) if answer.errors is None else answer.errors for _, _, table, answer in mine]
        about = tuple(each for _, _, _, answer in mine for each in answer.metadata)
        head.program.record(members[order], Answer(np.concatenate(errors)[order], about))
        found.append(table.reshape(*head.lead, table.shape[-1]))
    return found
