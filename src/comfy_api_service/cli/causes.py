"""Why a connection failed: the system's own error, which HTTP clients wrap several times."""

import socket
from collections.abc import Iterator


def system_error(error: BaseException) -> OSError | None:
    """The innermost error of the system behind this one: refused, unreachable, an unknown name …"""
    found = None
    for one in _chain(error):
        if isinstance(one, OSError) and (one.errno is not None or isinstance(one, socket.gaierror)):
            found = one
    return found


def in_words(error: BaseException) -> str:
    """What a person should read of it."""
    found = system_error(error)
    if isinstance(found, ConnectionRefusedError):
        return "connection refused"
    if isinstance(found, socket.gaierror):
        return "its host name is not known"
    if found is not None and found.strerror:
        return found.strerror.lower()
    return str(error) or type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, outermost first; of several that failed side by side, each."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
        waiting.extend(cause for cause in (one.__cause__, one.__context__) if cause is not None)
