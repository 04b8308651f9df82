from collections.abc import Callable
from dataclasses import dataclass

import pytest

from comfy_api_service.cli.main import main


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str


Shell = Callable[..., Ended]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: "object") -> None:
    """No setting of whoever runs the tests, no colours, and lines of one width."""
    for name in ("COMFYUI_URL", "COMFYUI_DIR", "DATA_DIR", "HOST", "PORT", "COMFY_API_URL", "COMFY_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(str(tmp_path))


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str]) -> Shell:
    """Run a command in this process, as the entry point does."""

    def call(*arguments: str) -> Ended:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main(arguments)
        out, err = capfd.readouterr()
        code = end.value.code
        return Ended(code if isinstance(code, int) else int(code is not None), out, err)

    return call
