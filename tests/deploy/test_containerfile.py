"""The container image: what goes in, and how it runs. `make image-check` builds it as far as it can be built."""

import re
import sys
import tomllib

from tests.support.image import ROOT, argument, context, health_check, only, pairs, stages

from comfy_api_service import __version__

FINAL = stages()[-1]


def test_the_image_has_what_traces_and_reports_need() -> None:
    locked = (ROOT / "requirements.lock").read_text()
    for name in ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "sentry-sdk"):
        assert f"\n{name}==" in locked


def test_the_builder_is_given_the_sources_and_nothing_else() -> None:
    given = {str(path) for path in context()}
    tops = {path.partition("/")[0] for path in given}
    assert tops == {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "requirements-build.lock",
        "requirements.lock",
        "src",
    }
    assert not [path for path in given if path.endswith((".pyc", ".env", ".sqlite3"))]
    assert "src/comfy_api_service/cli/main.py" in given


def test_what_is_copied_is_given() -> None:
    given = {path.parts[0] for path in context()}
    for instruction in stages()[0]:
        if instruction.word == "COPY":
            *sources, _ = instruction.rest.split()
            assert set(sources) <= given


def test_everything_installed_is_known_by_its_hash() -> None:
    commands = [
        command.strip()
        for instruction in stages()[0]
        if instruction.word == "RUN"
        for command in instruction.rest.split("&&")
    ]
    installs = [command for command in commands if re.search(r"\bpip\b.* (install|wheel)\b", command)]
    assert len(installs) == 4
    for command in installs:
        # from hashes, or what stands in the context and nothing from outside
        assert "--require-hashes" in command or "--no-deps" in command, command
        assert "--no-index" in command or "--require-hashes" in command or "--no-build-isolation" in command


def test_its_build_tools_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["build-system"]["requires"] == project["dependency-groups"]["build"]


def test_it_runs_on_the_python_that_the_tests_run_on() -> None:
    assert argument("PYTHON_VERSION") == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert all(stage[0].rest.startswith("python:${PYTHON_VERSION}-slim") for stage in stages())


def test_it_gets_signals_itself() -> None:
    assert only("ENTRYPOINT").exec_form == ["comfy-api"]
    assert only("CMD").exec_form == ["serve"]
    assert only("STOPSIGNAL").rest == "SIGTERM"


def test_it_is_not_root_and_takes_nothing_of_the_build_but_the_environment() -> None:
    user, _, group = only("USER").rest.partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert only("COPY").rest == "--from=build /opt/comfy-api /opt/comfy-api"
    assert [instruction.word for instruction in FINAL].count("RUN") == 1


def test_its_health_is_asked_over_http() -> None:
    assert health_check()[:2] == ["python", "-c"]
    assert "/health/live" in health_check()[2]


def test_it_says_what_it_is() -> None:
    labels = pairs("LABEL")
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == "${VERSION}"
    assert argument("VERSION") == __version__
