"""The service as it would be without metrics: the shell's command, with counters that count nothing.

`prometheus_client` keeps its families and children, so that the same objects are asked; only what they do is gone.
Logs are put away by their level.
"""

import structlog
from prometheus_client import Counter, Gauge, Histogram

from comfy_api_service.api import gate
from comfy_api_service.api.measures import Measures
from comfy_api_service.cli.main import main


def _nothing(*_: object, **__: object) -> None:
    return None


def silence() -> None:
    for family, names in ((Counter, ("inc",)), (Gauge, ("inc", "dec", "set")), (Histogram, ("observe",))):
        for name in names:
            setattr(family, name, _nothing)
    Measures.entered = Measures.left = Measures.answered = _nothing  # type: ignore[method-assign]
    structlog.contextvars.bind_contextvars = lambda **_: {}
    structlog.contextvars.reset_contextvars = _nothing
    gate.Gate._note = _nothing  # type: ignore[method-assign]  # noqa: SLF001 - lines and figures of a request


if __name__ == "__main__":
    silence()
    main()
