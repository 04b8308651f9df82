"""Several requests in one call: each valid, refused or merged on its own, and every one of them listed."""

from pathlib import Path

import pytest
from tests.support.checker import check
from tests.support.stack import FAST, ended, online, order, running, submit

from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.errors import Code, NotFound, Refused, ServiceError
from comfy_api_service.domain.job import Status
from comfy_api_service.domain.submission import Order
from comfy_api_service.simulator import Simulator


async def test_good_refused_and_merged_requests_stand_side_by_side(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        earlier = await submit(service, order(seed=1))
        bad = Refused(Code.VALIDATION_ERROR, "made up")
        orders: list[Order | ServiceError] = [
            order(seed=1, dedupe=True),
            bad,
            order(seed=2, dedupe=True),
            order(seed=2, dedupe=True),
            order(model="no-such.safetensors"),
        ]
        batch = await service.services.batches.submit(LOCAL, orders, body=b"")
        again = await service.services.batches.get(LOCAL, batch.id)
        for seen in (batch, again):
            assert seen.total == 5
            jobs = [item.view.job.id if item.view else None for item in seen.items]
            codes = [item.error["code"] if item.error else None for item in seen.items]
            assert jobs[0] == earlier.job_id
            assert jobs[2] == jobs[3] is not None
            assert codes == [None, Code.VALIDATION_ERROR, None, None, Code.MODEL_NOT_FOUND]
        for item in again.items:
            if item.view is not None:
                assert (await ended(service, item.view.job.id)).status is Status.SUCCEEDED
        with pytest.raises(NotFound):
            await service.services.batches.get(LOCAL, "batch_00000000000000000000000000")
    check(tmp_path)
