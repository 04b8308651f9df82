"""Bare FastAPI: the body validated by the service's own model, nothing written, an answer of one field.

`python -m benchmarks.bare.http PORT`
"""

import sys

import uvicorn
from fastapi import FastAPI

from benchmarks.servers import HOST
from comfy_api_service.api.schemas.submission import JobRequest

app = FastAPI(openapi_url=None)


@app.get("/ping")
async def ping() -> dict[str, bool]:
    return {"ok": True}


@app.post("/api/v1/jobs", status_code=202)
async def submit(body: JobRequest) -> dict[str, str]:
    return {"prompt": body.prompt}


if __name__ == "__main__":
    uvicorn.run(
        app,
        host=HOST,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
