"""What a forked process must not take over from its parent: locks of threads that it does not have, and open files."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar, overload

T = TypeVar("T")

#: For blocks in which something is open that a forked process must not inherit: a fork waits for their end. They run
#: one at a time, in all threads together, and may be nested.
no_fork = threading.RLock()

_LOCKS: weakref.WeakSet[ForkLock] = weakref.WeakSet()


class ForkLock:
    """A reentrant lock, for ``with``, that a forked process starts with unlocked, whoever held it in the parent.

    For locks that are held long, or that guard what is safe to use as a fork leaves it.
    """

    def __init__(self) -> None:
        self._lock = self._entered = threading.RLock()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        lock = self._lock
        lock.acquire()
        self._entered = lock

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered.release()

    def _renew(self) -> None:
        self._lock = threading.RLock()


class cached_property(functools.cached_property[T]):
    """:class:`functools.cached_property` without the lock that it has in Python 3.11, for all objects together."""

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> Self | T:
        if instance is None or self.attrname is None:
            return self
        values = instance.__dict__
        if self.attrname not in values:
            values[self.attrname] = self.func(instance)
        return values[self.attrname]


def in_forked_process(function: Callable[[], None]) -> Callable[[], None]:
    """Have a function called in each forked process before anything else; for use as a decorator."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
    return function


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=no_fork.release)


@in_forked_process
def _renew_locks() -> None:
    for lock in list(_LOCKS):
        lock._renew()
