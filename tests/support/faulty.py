"""`python -m tests.support.faulty …` is `comfy-api …` with mistakes in it, whose exceptions quote callers."""

import asyncio
from typing import Any, NoReturn

from comfy_api_service.cli.main import main
from comfy_api_service.services.submit import Submitter
from comfy_api_service.worker.settle import Settler


async def _fail(words: str) -> NoReturn:
    raise LookupError(words)


def install() -> None:
    """A retry fails, and leaves work behind that fails too; a job whose prompt says `explode` cannot be settled."""
    settle = Settler._settle
    tasks = set()

    async def retry(self: Submitter, account: Any, job_id: str, **_: Any) -> NoReturn:
        job = (await self._jobs.get(account, job_id)).job
        words = str(job.params["prompt"])
        tasks.add(asyncio.create_task(_fail(words)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks.clear()
        raise RuntimeError(words)

    async def failing(self: Settler, run: Any, *arguments: Any) -> None:
        words = str(run.assignment.params.get("prompt"))
        if "explode" in words:
            raise RuntimeError(words)
        await settle(self, run, *arguments)

    Submitter.retry = retry  # type: ignore[method-assign]
    Settler._settle = failing  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    install()
    main()
