"""A real S3 server, as a process that can be killed and stopped: `rclone serve s3`, which verifies signatures."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import obstore
from aiohttp import web
from obstore.store import S3Store
from tests.support.files import files_below
from yarl import URL

from comfy_api_service.storage.s3 import Bucket

ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "a-secret-of-the-tests"
STARTED_WITHIN = 30.0


class S3Server:
    """Serves the folders in `root`, each a bucket; what it stores can be looked at there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self.output: list[str] = []
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bucket(self, name: str) -> Bucket:
        """An empty bucket of this name."""
        made = Bucket(
            endpoint=self.url,
            name=name,
            region="us-east-1",
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
        )
        # Through the server: it remembers for minutes which folders there are.
        store = S3Store(
            name,
            endpoint=self.url,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            client_options={"allow_http": True},
        )
        link = obstore.sign(store, "PUT", "", timedelta(minutes=1))
        httpx2.put(link, trust_env=False).raise_for_status()
        return made

    def files(self, bucket: Bucket) -> list[str]:
        """Keys of what is stored, and names of what is being written, past the server."""
        folder = self.folder(bucket)
        return [str(path.relative_to(folder)) for path in files_below(folder)]

    def start(self) -> None:
        """Begin, or begin again at the same address."""
        self._process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "rclone"),
                "serve",
                "s3",
                str(self.root),
                "--addr",
                f"127.0.0.1:{self.port}",
                "--auth-key",
                f"{ACCESS_KEY},{SECRET_KEY}",
            ],
            env={"PATH": os.environ["PATH"], "HOME": str(self.root.parent)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        end = time.monotonic() + STARTED_WITHIN
        while not self._answers():
            assert self._process.poll() is None, "\n".join(self.output)
            assert time.monotonic() < end, "\n".join(self.output)
            time.sleep(0.02)

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self.output.append(line.rstrip())
                found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
                if found:
                    self.port = int(found[1])

    def _answers(self) -> bool:
        if self.port == 0:
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def end(self) -> None:
        """SIGTERM: it lets requests end."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)

    def folder(self, bucket: Bucket) -> Path:
        """Where the files of its objects are."""
        return self.root / bucket.name

    def pause(self) -> None:
        """SIGSTOP: connections are taken, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)  # its threads may go on until then

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def s3_settings(bucket: Bucket) -> dict[str, Any]:
    """The settings of a service whose results go there."""
    return {
        "s3_endpoint": bucket.endpoint,
        "s3_bucket": bucket.name,
        "s3_region": bucket.region,
        "s3_access_key": bucket.access_key,
        "s3_secret_key": bucket.secret_key,
    }


@contextmanager
def s3_server(root: Path) -> Iterator[S3Server]:
    root.mkdir(parents=True, exist_ok=True)
    server = S3Server(root)
    try:
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def answering_206(
    bucket: Bucket, *, keeps_host: bool = True, seen: set[str] | None = None
) -> AsyncIterator[Bucket]:
    """The same bucket behind a proxy that marks parts of objects as such: rclone answers a range with status 200.

    Without `keeps_host` it is a proxy as it should not be: the Host header, which is signed, becomes the server's.
    `seen` is given the names of the headers that are sent.
    """
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            url = URL(f"{bucket.endpoint}{request.raw_path}", encoded=True)
            sent = request.headers.copy()
            if seen is not None:
                seen.update(name.lower() for name in sent)
            if not keeps_host:
                del sent["Host"]
            async with session.request(request.method, url, headers=sent, data=request.content) as answer:
                status = 206 if "Content-Range" in answer.headers else answer.status
                headers: Any = {
                    name: value
                    for name, value in answer.headers.items()
                    if name.lower() not in ("transfer-encoding", "connection")
                }
                response = web.StreamResponse(status=status, headers=headers)
                await response.prepare(request)
                if request.method != "HEAD":
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
                return response

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield replace(bucket, endpoint=f"http://127.0.0.1:{runner.addresses[0][1]}")
        finally:
            await runner.cleanup()
