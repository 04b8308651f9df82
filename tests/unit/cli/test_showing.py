import base64
import io
from typing import Any

import pytest
from PIL import Image

from comfy_api_service.cli.client import bars, inline
from comfy_api_service.cli.client.inline import Protocol


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"TERM": "xterm-kitty"}, Protocol.KITTY),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, Protocol.KITTY),
        ({"TERM": "xterm-ghostty"}, Protocol.KITTY),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, Protocol.ITERM),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, Protocol.KITTY),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, Protocol.ITERM),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, Protocol.ITERM),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({"TERM": "screen-256color", "TERM_PROGRAM": "iTerm.app"}, None),
        ({}, None),
    ],
)
def test_terminals_that_show_pictures(environment: dict[str, str], found: Protocol | None) -> None:
    assert inline.protocol(environment, is_terminal=True) is found
    assert inline.protocol(environment, is_terminal=False) is None


def picture(size: int, form: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.effect_noise((size, size), 80).save(out, form)
    return out.getvalue()


def test_kitty_gets_a_small_png_in_pieces() -> None:
    pieces = inline.encoded(picture(1000), Protocol.KITTY).rstrip("\n").split("\x1b\\")[:-1]
    assert pieces[0].startswith("\x1b_Ga=T,f=100,m=1;")
    assert all(piece.startswith("\x1b_Gm=1;") for piece in pieces[1:-1])
    assert pieces[-1].startswith("\x1b_Gm=0;")
    data = base64.b64decode("".join(piece.partition(";")[2] for piece in pieces))
    with Image.open(io.BytesIO(data)) as shown:
        assert (shown.format, shown.size) == ("PNG", (480, 480))


def test_iterm_gets_one_sequence() -> None:
    text = inline.encoded(picture(64), Protocol.ITERM)
    assert text.startswith("\x1b]1337;File=inline=1;size=")
    assert text.endswith("\a\n")


@pytest.mark.parametrize(
    ("how", "size", "form", "sent"),
    [
        (Protocol.ITERM, 256, "JPEG", None),
        (Protocol.ITERM, 256, "PNG", None),
        (Protocol.ITERM, 256, "WEBP", "JPEG"),
        (Protocol.ITERM, 512, "JPEG", "JPEG"),
        (Protocol.KITTY, 256, "PNG", None),
        (Protocol.KITTY, 256, "JPEG", "PNG"),
        (Protocol.KITTY, 512, "PNG", "PNG"),
    ],
)
def test_a_preview_is_sent_as_it_came_where_that_will_do(
    how: Protocol, size: int, form: str, sent: str | None
) -> None:
    given = picture(size, form)
    small = inline.preview(given, how)
    assert small is not None
    assert (small.data == given) is (sent is None)
    with Image.open(io.BytesIO(small.data)) as shown:
        assert (shown.format, shown.size) == (sent or form, (256, 256))


def test_what_is_no_picture_is_not_shown() -> None:
    assert inline.encoded(b"no picture", Protocol.KITTY) == ""


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"status": "queued", "queue_position": 3}, "queued, number 3"),
        ({"type": "snapshot", "status": "queued", "job": {"queue_position": 1}}, "queued, number 1"),
        ({"type": "running", "status": "running"}, "running"),
        ({"type": "progress", "status": "running", "message": "loading the model"}, "loading the model"),
        ({"type": "requeued", "status": "queued"}, "queued again: the attempt was lost"),
        ({"type": "artifact", "status": "running"}, ""),
        ({"type": "done", "status": "succeeded", "job": {}}, "succeeded"),
        ({"type": "snapshot", "status": "running", "job": {"canceling": True}}, "canceling"),
    ],
)
def test_words(event: dict[str, Any], text: str) -> None:
    assert bars.words(event) == text


def test_steps() -> None:
    assert bars.steps({"type": "progress", "progress": 45, "step": 9, "total": 20}) == (45.0, "step 9/20")
    assert bars.steps(
        {"type": "snapshot", "job": {"progress": 5.0, "current_step": 1, "total_steps": 20}}
    ) == (
        5.0,
        "step 1/20",
    )
    assert bars.steps({"type": "queued"}) == (None, "")


def test_without_a_terminal_each_state_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    events: list[dict[str, Any]] = [
        {"status": "queued", "queue_position": 1},
        {"type": "snapshot", "status": "queued", "job": {"queue_position": 1, "progress": 0.0}},
        {"type": "running", "status": "running"},
        *({"type": "progress", "progress": n, "step": n, "total": 100} for n in range(101)),
        {"type": "done", "status": "succeeded", "job": {}},
    ]
    with bars.bar() as shown:
        for event in events:
            shown.show(event)
    assert capfd.readouterr().err.splitlines() == [
        "queued, number 1",
        "running",
        "running, 25 %, step 25/100",
        "running, 50 %, step 50/100",
        "running, 75 %, step 75/100",
        "succeeded",
    ]
