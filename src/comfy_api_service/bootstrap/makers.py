"""Which classes a process is built of: the plain ones, or those that tell traces of what they do.

So traces that are off cost nothing: no code of theirs is loaded, and nothing asks whether they are on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from comfy_api_service.api.gate import Gate
from comfy_api_service.comfyui.transport import Transport
from comfy_api_service.services.lane_work import LaneWork
from comfy_api_service.services.submit import Submitter
from comfy_api_service.worker.carrier import Carrier
from comfy_api_service.worker.collect import Collector
from comfy_api_service.worker.driver import Driver
from comfy_api_service.worker.reporter import Reporter

if TYPE_CHECKING:
    from comfy_api_service.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Makers:
    gate: Callable[..., Gate] = Gate
    submitter: Callable[..., Submitter] = Submitter
    reporter: Callable[..., Reporter] = Reporter
    collector: Callable[..., Collector] = Collector
    carrier: Callable[..., Carrier] = Carrier
    driver: Callable[..., Driver] = Driver
    transport: Callable[..., Transport] = Transport
    lane_work: Callable[..., LaneWork] = LaneWork


def makers(tracing: "Tracing | None") -> Makers:
    if tracing is None:
        return Makers()
    from comfy_api_service.api.traced import TracedGate  # noqa: PLC0415
    from comfy_api_service.comfyui.traced import TracedTransport  # noqa: PLC0415
    from comfy_api_service.services.traced import TracedLaneWork, TracedSubmitter  # noqa: PLC0415
    from comfy_api_service.worker import traced  # noqa: PLC0415

    return Makers(
        gate=partial(TracedGate, tracing),
        submitter=partial(TracedSubmitter, tracing),
        reporter=partial(traced.TracedReporter, tracing),
        collector=partial(traced.TracedCollector, tracing),
        carrier=partial(traced.TracedCarrier, tracing),
        driver=partial(traced.TracedDriver, tracing),
        transport=partial(TracedTransport, tracing),
        lane_work=partial(TracedLaneWork, tracing),
    )
