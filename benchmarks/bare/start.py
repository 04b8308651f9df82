"""Bare FastAPI that imports what it is told to: `python -m benchmarks.bare.start PORT FILE`, a module a line."""

import contextlib
import importlib
import sys
from pathlib import Path


def main() -> None:
    for name in Path(sys.argv[2]).read_text().splitlines():
        with contextlib.suppress(ImportError):  # a few exist as parts of others only
            importlib.import_module(name)
    import uvicorn  # noqa: PLC0415 - after those, as the service has it
    from fastapi import FastAPI  # noqa: PLC0415

    app = FastAPI()

    @app.get("/ping")
    async def ping() -> dict[str, bool]:
        return {"ok": True}

    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[1]), lifespan="off", access_log=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
