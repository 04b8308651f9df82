"""Short forms of the load tests: `make load` runs them whole."""

from pathlib import Path

import pytest
from tests.load import locusts, overload
from tests.load.__main__ import main


def test_steady_load_then_ten_times_what_the_backend_can_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On one service, which the first takes as one that runs already."""
    plan = overload.Plan(seconds=3.0, one_machine=True, backends=1, calm_seconds=1.5)
    report, keys = tmp_path / "steady.html", tmp_path / "keys.txt"
    with overload.opened(plan, tmp_path / "stage") as stage:
        keys.write_text("\n".join(stage.keys))
        wish = ["steady", "--seconds", "60", "--jobs", "2", "--users", "2", "--report", str(report)]
        url = stage.process(next(iter(stage.doors))).url
        assert main([*wish, "--host", url, "--keys-file", str(keys)]) == 0
        told = capsys.readouterr().out
        assert "x picture:" in told
        assert f"report: {report}" in told
        assert "from submission to end" in report.read_text(encoding="utf-8")

        outcome = overload.press(plan, stage, lambda _: None)
    assert (
        outcome.seen.normal_after is not None
    )  # how soon, says `make load ARGS=overload`: here others run beside it
    assert [text for text in outcome.found if not text.startswith("not as before within")] == []
    assert outcome.seen.answers["429 QUEUE_LIMIT_EXCEEDED"] > outcome.seen.answers["202"] > 0
    assert "429: answered within" in overload.told(outcome)


def test_what_breaks_a_promise_is_found() -> None:
    seen = overload.Seen()
    seen.wrong["500 INTERNAL_ERROR"] += 1
    seen.answers["500 INTERNAL_ERROR"] += 1
    found = overload._judged(seen, {"API 1": (150.0, 200.0, 0.0), "API 2": (150.0, 9.0, 1.0)})
    assert [text.split(":")[0] for text in found] == [
        "1 times 500 INTERNAL_ERROR",
        "memory of API 1 grew by 200.0 MB, 0.0 MB of it late",
        "not as before within 10 s",
    ]
    seen = overload.Seen(normal_after=1.0)
    seen.answers["202"] += 1
    assert overload._judged(seen, {}) == ["nobody was refused: that was no overload"]


@pytest.mark.parametrize(
    "wish",
    [["overload", "--host", "http://127.0.0.1:1"], ["--keys-file", "keys.txt"], ["--users", "0"], ["other"]],
)
def test_wishes_that_make_no_sense_are_refused(wish: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(wish)
    assert refused.value.code == 2


def test_each_profile_has_its_file() -> None:
    assert {path.stem for path in locusts.FOLDER.glob("*.py")} == {*locusts.PROFILES, "calls", "__init__"}
