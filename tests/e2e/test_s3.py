"""The real service over a real S3 server, both killed with real signals."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.support.checker import check
from tests.support.files import files_below
from tests.support.processes import client, serve, simulator, until_online
from tests.support.s3 import S3Server, s3_server, s3_settings

from comfy_api_service.storage.s3 import Bucket

LIMIT = 40.0
BODY = {"prompt": "a lighthouse", "steps": 4, "width": 64, "height": 64, "seed": 1}
QUICK = ("--seconds-per-step", "0.01", "--seconds-per-load", "0")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[S3Server]:
    with s3_server(tmp_path / "s3") as server:
        yield server


def variables(bucket: Bucket) -> dict[str, str]:
    return {name.upper(): value for name, value in s3_settings(bucket).items()} | {"NO_PROXY": "127.0.0.1"}


def until_status(api: httpx2.Client, job_id: str, *wanted: str) -> dict[str, object]:
    end = time.monotonic() + LIMIT
    while (job := api.get(f"/api/v1/jobs/{job_id}").json())["status"] not in wanted:
        assert time.monotonic() < end, f"still {job['status']}, not {wanted}"
        time.sleep(0.05)
    return dict(job)


def test_a_picture_goes_to_the_bucket_and_its_link_opens(tmp_path: Path, store: S3Server) -> None:
    bucket = store.bucket("results")
    with (
        simulator(tmp_path, *QUICK) as sim,
        serve(tmp_path, sim.url, **variables(bucket)) as service,
        client(service) as api,
    ):
        until_online(api)
        answer = api.post("/api/v1/generate", json=BODY)
        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert made["image_url"].startswith(f"{store.url}/results/jobs/")
        got = httpx2.get(made["image_url"], trust_env=False)
        assert (got.status_code, got.headers["content-type"]) == (200, "image/png")
        assert got.headers["content-disposition"].startswith("inline; filename=")
        assert got.content.startswith(b"\x89PNG")
        result = api.get(f"/api/v1/jobs/{made['job_id']}/result")
        assert result.content == got.content
        part = api.get(f"/api/v1/jobs/{made['job_id']}/result", headers={"Range": "bytes=1-3"})
        assert (part.status_code, part.content) == (206, b"PNG")
        small = api.get(f"/api/v1/jobs/{made['job_id']}/result", params={"size": 16})
        assert small.headers["content-type"] == "image/webp"
        turned = api.get(f"/api/v1/jobs/{made['job_id']}/result", params={"redirect": "true"})
        assert (turned.status_code, turned.headers["location"].split("?")[0]) == (
            307,
            made["image_url"].split("?")[0],
        )
        health = api.get("/health").json()
        assert (health["storage_status"], health["minio_status"]) == ("connected", "connected")
        gone = api.delete(f"/api/v1/jobs/{made['job_id']}", params={"purge": "true"})
        assert gone.status_code == 200, gone.text
        assert store.files(bucket) == []
        assert service.terminate() == 0
        assert not any(bucket.secret_key in line for line in service.output)


def test_a_result_survives_kill_9_of_store_and_service(tmp_path: Path, store: S3Server) -> None:
    bucket = store.bucket("results")
    with simulator(tmp_path, *QUICK) as sim:
        with serve(tmp_path, sim.url, **variables(bucket)) as service, client(service) as api:
            store.kill()
            job_id = str(api.post("/api/v1/jobs", json=BODY).json()["job_id"])
            end = time.monotonic() + LIMIT
            while "parcel.json" not in [path.name for path in files_below(tmp_path / "data" / "parked")]:
                assert time.monotonic() < end, "\n".join(service.output)
                time.sleep(0.02)
            assert until_status(api, job_id, "running")["attempts"] == 1
            service.kill()
        record = httpx2.get(f"{sim.url}/_simulator/record", trust_env=False).json()
        assert record["executions"] == 1
    # The backend is gone for good, and with it its copy.
    store.start()
    with serve(tmp_path, sim.url, **variables(bucket)) as service, client(service) as api:
        job = until_status(api, job_id, "succeeded", "failed")
        assert (job["status"], job["attempts"]) == ("succeeded", 1)
    check(tmp_path / "data", [job_id], artifacts=store.folder(bucket))
