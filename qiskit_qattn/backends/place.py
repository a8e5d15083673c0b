"""Where circuits run: backends, groups and chains of them, opened from a string, and the sessions to be closed."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from qiskit_qattn.backends.registry import Backend, get_backend, registration
from qiskit_qattn.backends.several import Group
from qiskit_qattn.backends.spec import ARROW, BackendGroup, BackendSpec, End, parse_chain
from qiskit_qattn.errors import BackendError
from qiskit_qattn.forks import in_forked_process

if TYPE_CHECKING:
    from qiskit_qattn.backends.jobs.estimator import ManagedEstimator  # it needs a provider's extra

Link = tuple[str, Backend | BackendError | Group]  # a name, and what it refers to or why that could not be opened
_Close = tuple[str, Callable[[], None]]  # a backend's name, and what closes its sessions
_CLOSING_SECONDS = 10.0  # how long to wait for sessions to close before SIGTERM ends the program
_OPEN: weakref.WeakSet[Sessions] = weakref.WeakSet()
_CLOSING: list[threading.Thread] = []
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Place:
    """Where circuits run: one backend, several at once, or a chain of these that are tried one after another.

    A place that was opened from a string owns what its backends open on their devices, such as sessions. Those are
    closed when the last holder of the place, a copy of a holder included, drops it; at the end of a ``with`` block; and
    when the program ends. Jobs that are queued by then still run.

    Attributes:
        links: Name and backend of each link, or group of backends, in the order in which they are tried; the error in
            place of a backend that could not be opened.
        end: What follows the last link: ``raise`` its error, or compute the ``classical`` twin of the head.
        sessions: What has to be closed, or None where the backends are the caller's to close.
    """

    links: tuple[Link, ...]
    end: End = "raise"
    sessions: Sessions | None = None

    @classmethod
    def of(cls, where: Place | Backend | str) -> Place:
        """Return the place of a backend, or of a backend string, which is opened.

        Raises:
            UnknownNameError, ConfigError, MissingDependencyError, BackendError: As :meth:`open` does.
        """
        if isinstance(where, Place):
            return where
        if isinstance(where, Backend | Group):
            return cls(((where.name, where),))
        return cls.open(where)

    @classmethod
    def open(cls, text: str) -> Place:
        """Open the backends of a string such as ``ibm:ibm_fez?budget=60s + ibm:ibm_kingston?budget=60s -> aer``.

        A backend that cannot be opened now counts as failed in every call; at least one must open, unless the chain
        ends with ``classical``.

        Raises:
            UnknownNameError, ConfigError, MissingDependencyError: As :func:`get_backend` does, for any backend; for a
                device that is in a group twice.
            BackendError: If no link could be opened.
        """
        chain = parse_chain(text)
        links = tuple(_open_link(link) for link in chain.links)
        errors = [link for _, link in links if isinstance(link, BackendError)]
        if len(errors) == len(links) and chain.end == "raise":
            raise errors[-1]
        return cls(links, chain.end, Sessions(_backends(links)))

    @property
    def name(self) -> str:
        """The backend string in normal form."""
        end = [] if self.end == "raise" else [self.end]
        return f" {ARROW} ".join([*(name for name, _ in self.links), *end])

    @property
    def backends(self) -> list[Backend]:
        """The backends that could be opened."""
        return _backends(self.links)

    @property
    def single(self) -> Backend | None:
        """The backend of a place that has only one, None for a chain or a group."""
        [*others, (_, last)] = self.links
        return last if not others and self.end == "raise" and isinstance(last, Backend) else None

    @property
    def devices(self) -> list[tuple[Backend, ManagedEstimator]]:
        """The backends that send jobs to a device, each with its estimator, which has its budget and expenses."""
        found: list[tuple[Backend, Any]] = [(each, each.estimator) for each in self.backends]
        return [(each, estimator) for each, estimator in found if hasattr(estimator, "budget")]

    @property
    def differentiable(self) -> bool:
        """Whether torch engines compute the values of every link that could be opened, so that autograd applies."""
        return all(each.differentiable for each in self.backends)

    @property
    def samples(self) -> bool:
        """Whether any link returns sampled values, which differ from call to call."""
        return any(each.precision > 0 for each in self.backends)

    def close(self) -> None:
        """Close the sessions that the backends hold open; their next job opens new ones.

        Raises:
            BackendError: If that fails; the others were closed all the same.
        """
        if self.sessions is not None and (failed := _close(self.sessions.closes)):
            raise failed[0][1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; an error of the block takes precedence over one of closing."""
        if error is None:
            self.close()
        elif self.sessions is not None:
            _close_and_log(self.sessions.closes)


class PlaceReference:
    """A place that can be returned to. It does not keep the place's sessions open in the meantime.

    Args:
        place: The place.
    """

    def __init__(self, place: Place) -> None:
        self._links, self._end = place.links, place.end
        self._place = weakref.ref(place)
        self._sessions = None if place.sessions is None else weakref.ref(place.sessions)

    def __call__(self) -> Place:
        """Return the place, with sessions of its own if the old ones were closed in the meantime."""
        place = self._place()
        if place is None:
            sessions = None if self._sessions is None else self._sessions()
            if self._sessions is not None and sessions is None:
                sessions = Sessions(_backends(self._links))
                self._sessions = weakref.ref(sessions)
            place = Place(self._links, self._end, sessions)
            self._place = weakref.ref(place)
        return place


class Sessions:
    """What backends hold open on their devices, closed when nothing refers to this object any more.

    Ctrl-C and the end of the program close it too, and so does SIGTERM, unless the program handles that itself. Copies
    share it. A forked process does not close its parent's: a device's ``close`` closes what its own process opened.

    Args:
        backends: The backends; those with nothing to close are fine.

    Attributes:
        backends: As given.
        closes: Name and function to call for each that has something to close.
    """

    def __init__(self, backends: Iterable[Backend]) -> None:
        self.backends = tuple(backends)
        self.closes = [(each.name, close) for each in self.backends if (close := _close_method(each)) is not None]
        if self.closes:
            _close_on_sigterm()
            _OPEN.add(self)
            weakref.finalize(self, _close_in_thread, self.closes).atexit = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> Any:
        return type(self), (self.backends,)


def settled(given: str, recorded: str) -> str:
    """Return ``recorded`` if it is ``given`` with devices in place of its choices, else ``given``.

    So that what was started on ``ibm:least_busy`` goes on with the device that was chosen then.

    Args:
        given: A backend string, or a chain of them.
        recorded: The name of the place that was opened from such a string.
    """
    ours, theirs = parse_chain(given), parse_chain(recorded)
    sizes = [(*map(len, chain.specs), chain.end) for chain in (ours, theirs)]
    if ours == theirs or sizes[0] != sizes[1]:
        return given
    pairs = (pair for links in zip(ours.specs, theirs.specs, strict=True) for pair in zip(*links, strict=True))
    return recorded if all(one == other or _is_choice(one, other) for one, other in pairs) else given


def _is_choice(one: BackendSpec, other: BackendSpec) -> bool:
    """Tell whether the second string may be the first, with the device that was chosen."""
    same = (one.name, one.options) == (other.name, other.options)
    return same and one.target in registration(one.name).provider.choices


@contextmanager
def session(backend: Backend | str) -> Iterator[Backend]:
    """Yield a backend, and close what it holds open on its device, such as a session, when the block ends.

    Jobs that are queued by then still run. A backend with nothing to close may be given too. If the block fails, its
    error is the one raised, whatever becomes of closing.

    Args:
        backend: A backend string, such as ``ibm:least_busy?mode=session``, or a backend.

    Raises:
        UnknownNameError, ConfigError: For a string that names no backend.
        BackendError: If the block ends well and closing fails.
    """
    found = get_backend(backend) if isinstance(backend, str) else backend
    with Place(((found.name, found),), sessions=Sessions([found])):
        yield found


def wait_until_closed() -> None:
    """Wait, for some seconds at most, until sessions that are being closed in the background are closed."""
    while _CLOSING:
        _CLOSING.pop().join(_CLOSING_SECONDS)


def _open_link(link: BackendSpec | BackendGroup) -> Link:
    """Return the name and the backend or group of one link, or its error."""
    if isinstance(link, BackendGroup):
        group = Group(tuple(_open(spec) for spec in link.members))
        failed = [each for _, each in group.members if isinstance(each, BackendError)]
        return group.name, failed[-1] if len(failed) == len(group.members) else group
    return _open(link)


def _open(spec: BackendSpec) -> tuple[str, Backend | BackendError]:
    try:
        backend = get_backend(str(spec))
    except BackendError as error:
        return str(spec), error
    return backend.name, backend


def _backends(links: Iterable[Link]) -> list[Backend]:
    """Return the backends that could be opened."""
    found: list[Backend] = []
    for _, link in links:
        found += link.backends if isinstance(link, Group) else [link] if isinstance(link, Backend) else []
    return found


def _close_method(backend: Backend) -> Callable[[], None] | None:
    return getattr(getattr(backend.estimator, "device", None), "close", None)


def _close(closes: Iterable[_Close]) -> list[tuple[str, BackendError]]:
    """Call all functions, and return the errors with the backends' names."""
    failed = []
    for name, close in closes:
        try:
            close()
        except BackendError as error:
            failed.append((name, error))
    return failed


def _close_and_log(closes: Iterable[_Close]) -> None:
    for name, error in _close(closes):
        _log.warning("%s could not be closed: %s", name, error)


def _close_in_thread(closes: Iterable[_Close]) -> None:
    """Close in a thread: garbage collection may interrupt anything, also a request of the same client."""
    _CLOSING.append(threading.Thread(target=_close_and_log, args=(closes,), daemon=True))
    _CLOSING[-1].start()


def _close_open() -> None:
    for sessions in list(_OPEN):
        _close_and_log(sessions.closes)


@atexit.register
def _close_all() -> None:
    wait_until_closed()
    _close_open()


in_forked_process(_CLOSING.clear)  # it has none of its parent's threads


def _close_on_sigterm() -> None:
    """Make SIGTERM close what is open before it ends the program, where nobody else handles it.

    A thread does the closing, so that a lock held by the interrupted code delays the end but does not prevent it.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return

    def handler(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        closing = threading.Thread(target=_close_open, daemon=True)
        closing.start()
        closing.join(_CLOSING_SECONDS)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, handler)
