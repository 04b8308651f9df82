"""Names that count as public and lead to this machine, for tests of calls to addresses that somebody gave."""

import ssl
from collections.abc import Sequence
from types import ModuleType

import pytest
import trustme

from comfy_api_service.outbound import addresses
from comfy_api_service.outbound import names as resolving


class Names:
    """A name server: each look-up of a name takes its next answer, the last one again and again."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        assert port
        self.asked.append(host)
        found = self._answers.get(host)
        if found is None:
            raise OSError("no such name")
        return found.pop(0) if len(found) > 1 else found[0]


def certificates(*names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server with these names, and of a client that believes it."""
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return served, trusting


def count_as_public(monkeypatch: pytest.MonkeyPatch, module: ModuleType, port: int) -> None:
    """127.0.0.1 alone does; `module` asks it on the port that the test's server got."""
    real = addresses.is_public
    monkeypatch.setattr(resolving, "is_public", lambda address: str(address) == "127.0.0.1" or real(address))

    def moved(url: str, **known: object) -> addresses.Target:
        found = addresses.target(url, **known)  # type: ignore[arg-type]
        return addresses.Target(found.url.with_port(port), found.host, found.address)

    monkeypatch.setattr(module, "target", moved)
