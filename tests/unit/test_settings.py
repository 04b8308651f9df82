"""Settings are checked at start, every fault at once, and none that does nothing is taken silently."""

import base64
import random
import sys
from pathlib import Path

import pytest

from comfy_api_service.bootstrap.parts import s3_bucket
from comfy_api_service.domain.tiers import TIERS
from comfy_api_service.settings import SettingsError, load, without_effect
from comfy_api_service.storage.s3 import Bucket


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


KEY = "5d0c7a1e94b83f26d75e0a9c41f8b3672e6d9f05"


def faults_of(**given: object) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        load(**given)
    return refused.value.faults


def test_every_fault_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("COMFYUI_URL", "ftp://host")
    monkeypatch.setenv("REDIS_URL", "http://canary@host")
    monkeypatch.setenv("SECRET_KEY", "short")
    faults = faults_of()
    assert "canary" not in str(faults)
    named = {fault.partition(":")[0] for fault in faults}
    assert named == {"PORT", "COMFYUI_URL", "REDIS_URL", "SECRET_KEY"}


def test_what_is_switched_off_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_ENABLED", "false")
    monkeypatch.setenv("RATE_LIMIT_ENABLED", "0")
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("SENTRY_DSN", "")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    settings = load()
    assert settings.sentry_dsn is None
    assert not settings.traces_on


def test_an_env_file_is_read_and_checked_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=8123\nSENTRY_DSN=https://sentry\n")
    assert faults_of() == ["SENTRY_DSN: is no DSN, as https://key@sentry.example.com/1 is"]
    (tmp_path / ".env").write_text("PORT=8123\n")
    assert load().port == 8123
    assert load(port=9000).port == 9000


def test_what_does_nothing_in_an_env_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert without_effect() == []
    (tmp_path / ".env").write_text(
        "auth_enable=true\nMINIO_BUCKET=b\nPort=1\nREDIS_URL_FILE=x\nOTEL_SERVICE_NAME=x\n"
        "COLOUR='first\nAUTH_ENABLD=second'\ncui_sk_0123\n"
    )
    told = [
        "unknown: auth_enable (AUTH_ENABLED?)",
        "REDIS_URL_FILE is read from the environment alone",
        "OTEL_SERVICE_NAME is read from the environment alone",
        "unknown: COLOUR",
    ]
    assert without_effect() == told
    for name in ("auth_enable", "REDIS_URL_FILE", "OTEL_SERVICE_NAME", "COLOUR"):
        monkeypatch.setenv(name, "x")  # as where the file is the environment's, too
    assert without_effect() == told[:1]


def test_tiers_come_from_a_file_with_every_fault_named(tmp_path: Path) -> None:
    path = tmp_path / "tiers.toml"
    path.write_text('[pro]\nrunning = 9\n[team]\nwaiting = "none"\nretention = "2h"\n')
    tiers = load(tiers_file=path).tiers
    assert (tiers["pro"].running, tiers["pro"].waiting) == (9, 500)
    assert (tiers["team"].waiting, tiers["team"].retention, tiers["team"].running) == (None, 7200.0, 1)
    assert tiers["free"] == TIERS["free"]
    path.write_text('[pro]\nrunning = -1\nspeed = 3\nlink_ttl = "soon"\n["?"]\n')
    (fault,) = faults_of(tiers_file=path)
    for name in ("TIERS_FILE: ", "pro.running", "pro.speed", "pro.link_ttl", "?"):
        assert name in fault
    path.write_text("[pro\n")
    assert faults_of(tiers_file=path)[0].startswith("TIERS_FILE: ")
    assert faults_of(tiers_file=tmp_path / "absent")[0].startswith("TIERS_FILE: cannot be read")


def test_the_list_of_terms_is_read_at_start_and_every_fault_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "terms"
    path.write_bytes("\ufeffforbidden\n# none\n".encode())
    found = load(prompt_blocklist_file=path).block_list
    assert found is not None
    assert found.has_any("Forbidden")
    path.write_text("fine\n/canary.*/\n\ncan*ary\n")
    (fault,) = faults_of(prompt_blocklist_file=path)
    assert fault.startswith("PROMPT_BLOCKLIST_FILE: line 2: ")
    assert "line 4: " in fault
    assert "canary" not in fault
    path.write_bytes(b"\xff\n")
    assert faults_of(prompt_blocklist_file=path) == ["PROMPT_BLOCKLIST_FILE: is not UTF-8"]
    path.write_bytes(b"a" * (4 << 20) + b"b")
    assert "larger" in faults_of(prompt_blocklist_file=path)[0]
    assert "cannot be read" in faults_of(prompt_blocklist_file=tmp_path / "absent")[0]
    assert load(prompt_blocklist_file="").block_list is None


@pytest.mark.parametrize(
    "hook",
    [
        "rules.example.com", "ftp://rules.example.com", "https://", "http://canary:canary@host/", "https://host/#canary",
        "python:", "python:module", "python:module:", "python:../module:f", "python:module:f:g", "python:mod ule:f",
    ],
)  # fmt: skip
def test_a_hook_is_an_address_or_a_function(hook: str) -> None:
    (fault,) = faults_of(prompt_hook=hook)
    assert fault.startswith("PROMPT_HOOK: ")
    assert "canary" not in fault


def test_the_other_settings_of_the_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for hook in ("http://127.0.0.1:9/check", "https://rules.example.com/check?v=1", "python:a.b_c:d"):
        assert load(prompt_hook=hook).prompt_hook == hook
    assert load(prompt_hook="").prompt_hook is None
    assert "would do nothing" in faults_of(prompt_hook="python:a:b", prompt_hook_secret="canary")[0]
    for secret in ("can ary", "can\r\nary", "canäry"):
        (fault,) = faults_of(prompt_hook="http://host/", prompt_hook_secret=secret)
        assert "ary" not in fault
    assert faults_of(prompt_hook_timeout=0)[0].startswith("PROMPT_HOOK_TIMEOUT")
    assert faults_of(prompt_hook_on_failure="maybe")[0].startswith("PROMPT_HOOK_ON_FAILURE")
    (tmp_path / "secret").write_text("canary\n")
    monkeypatch.setenv("PROMPT_HOOK_SECRET_FILE", str(tmp_path / "secret"))
    secret_setting = load(prompt_hook="http://host/").prompt_hook_secret
    assert secret_setting is not None
    assert secret_setting.get_secret_value() == "canary"


def test_secrets_come_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "key"))
    secret = load().secret_key
    assert secret is not None
    assert secret.get_secret_value() == KEY
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "absent"))
    assert faults_of()[0].startswith("SECRET_KEY_FILE:")


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("5d0c7a1e94b83f26d75e0a9c41f8b36", "at least 32"),
        ("k" * 40, "repeats"),
        ("0123456789abcdef" * 3, "repeats"),
        ("changeme" * 4, "repeats"),
        ("ChangeMe-" + KEY, "'changeme'"),
        ("my-super-SECRET-key-of-production", "'secret'"),
        ("django-insecure-" + KEY, "'insecure'"),
        ("please_change_this_to_something_else", "'changethis'"),
        ("correct horse battery pass-word staple", "'password'"),
        ("1234567890123456789012345678901234", "'12345678'"),
    ],
)
def test_a_key_that_can_be_guessed_is_refused_with_the_reason(secret: str, why: str) -> None:
    (fault,) = faults_of(secret_key=secret)
    assert fault.startswith("SECRET_KEY: ")
    assert why in fault
    assert "openssl rand -hex 32" in fault
    assert secret not in fault


def test_random_keys_are_taken() -> None:
    source = random.Random(0)
    for _ in range(200):
        drawn = source.randbytes(32)
        for key in (drawn.hex(), drawn.hex()[:32], base64.urlsafe_b64encode(drawn).decode()):
            load(secret_key=key)


def test_every_fault_of_the_door_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give(
        monkeypatch,
        TRUSTED_PROXIES="10.0.0.1, nobody.example, 0.0.0.0/0",
        ALLOWED_HOSTS="api.example.com,*,a.example:80",
        TLS_CERT_FILE=str(tmp_path / "absent.pem"),
        TLS_KEY_FILE=str(tmp_path),
        HSTS_MAX_AGE="-1",
    )
    faults = dict(fault.split(": ", 1) for fault in faults_of())
    assert faults.keys() == {
        "TRUSTED_PROXIES",
        "ALLOWED_HOSTS",
        "TLS_CERT_FILE",
        "TLS_KEY_FILE",
        "HSTS_MAX_AGE",
    }
    assert "nobody.example" in faults["TRUSTED_PROXIES"]
    assert "0.0.0.0/0" in faults["TRUSTED_PROXIES"]
    assert "a.example:80" in faults["ALLOWED_HOSTS"]
    assert "cannot be read (No such file" in faults["TLS_CERT_FILE"]
    assert str(tmp_path) not in str(faults)


def test_settings_of_the_door_that_would_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cert.pem").write_text("x")
    give(monkeypatch, TLS_CERT_FILE="cert.pem")
    assert faults_of() == ["SETTINGS: TLS_CERT_FILE and TLS_KEY_FILE need each other"]
    give(monkeypatch, TLS_CERT_FILE="", TLS_KEY_FILE="", HSTS_MAX_AGE="60")
    assert faults_of()[0].startswith("SETTINGS: HSTS_MAX_AGE would never be told")
    give(monkeypatch, TRUSTED_PROXIES="10.0.0.0/8, unix", ALLOWED_HOSTS="*.example.com")
    settings = load()
    assert settings.trusted_proxies == ("10.0.0.0/8", "unix")
    assert (settings.allowed_hosts, settings.tls_cert_file) == (("*.example.com",), None)


def test_where_redis_is_may_come_from_a_file_and_is_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_text("redis://:canary@host/1\n")
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "url"))
    settings = load()
    assert settings.redis_url == "redis://:canary@host/1"
    assert "canary" not in repr(settings)


def test_several_backends_and_the_older_name_of_concurrency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_URL", "http://one:8188, http://two:8188/")
    monkeypatch.setenv("ARQ_WORKER_CONCURRENCY", "5")
    settings = load()
    assert settings.comfyui_url == ("http://one:8188", "http://two:8188")
    assert settings.worker_concurrency == 5
    monkeypatch.setenv("COMFYUI_URL", "http://one:8188,http://one:8188/")
    assert faults_of()[0].startswith("COMFYUI_URL:")


STORE = {"S3_ENDPOINT": "http://store:9000/", "S3_ACCESS_KEY": "id", "S3_SECRET_KEY": "secret"}


def give(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("prefix", ["S3_", "MINIO_"])
def test_a_store_is_named_by_either_family_of_names(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**STORE, "S3_BUCKET": "pictures", "S3_REGION": "garage"}
    give(monkeypatch, **{name.replace("S3_", prefix): value for name, value in given.items()})
    bucket = s3_bucket(load())
    assert bucket == Bucket("http://store:9000", "pictures", "garage", "id", "secret")


def test_without_a_store_results_are_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert s3_bucket(load()) is None
    give(monkeypatch, S3_ENDPOINT="")
    assert s3_bucket(load()) is None


def test_the_credentials_of_the_store_come_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "id").write_text("id\n")
    (tmp_path / "secret").write_text("secret\n")
    give(
        monkeypatch,
        S3_ENDPOINT="http://store:9000",
        S3_ACCESS_KEY_FILE=str(tmp_path / "id"),
        S3_SECRET_KEY_FILE=str(tmp_path / "secret"),
    )
    bucket = s3_bucket(load())
    assert bucket is not None
    assert (bucket.access_key, bucket.secret_key, bucket.name) == ("id", "secret", "comfyui-artifacts")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"S3_ENDPOINT": "store:9000"}, "S3_ENDPOINT: must begin with http"),
        ({"S3_ENDPOINT": "http://store/bucket"}, "S3_ENDPOINT: only scheme"),
        ({"S3_ENDPOINT": "http://user:secret@store"}, "S3_ENDPOINT: only scheme"),
        ({"S3_PUBLIC_URL": "https://cdn.example/?x=1"}, "S3_PUBLIC_URL: only scheme"),
        ({"S3_BUCKET": "a/b"}, "S3_BUCKET: a bucket's name"),
        ({"S3_SECRET_KEY": ""}, "SETTINGS: S3_ENDPOINT needs"),
        ({"S3_ENDPOINT": ""}, "SETTINGS: S3_ACCESS_KEY and S3_SECRET_KEY without S3_ENDPOINT"),
        ({"PARKED_LIMIT": "-1"}, "PARKED_LIMIT:"),
        ({"PARKED_TIMEOUT": "0"}, "PARKED_TIMEOUT:"),
    ],
)
def test_a_store_that_is_described_wrong_stops_the_start(
    change: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, **{**STORE, **change})
    (fault,) = faults_of()
    assert fault.startswith(named)
    assert "secret" not in fault


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://host/name", "postgresql:// or sqlite:///"),
        ("postgresql+asyncpg://host/name", "postgresql:// or sqlite:///"),
        ("postgresql://user:hunter2@host", "names the database"),
        ("postgresql://user:hunter2@host/", "names the database"),
        ("postgresql://user:hunter2#@host/name", "%23"),
        ("postgresql://user:hunter2@host:port/name", "port"),
    ],
)
def test_an_address_of_a_database_that_cannot_be_right(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    (fault,) = faults_of()
    assert fault.startswith("DATABASE_URL: ")
    assert words in fault
    assert "hunter2" not in fault


def test_addresses_of_databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().postgres_url is None
    assert load(database_url="sqlite:///x.db").database_path == Path("x.db")
    for url in (
        "postgresql://u:p%23@h:5432/n?sslmode=require",
        "postgres://h1:5432,h2:5432/n",
        "postgres:///n?host=/s",
    ):
        assert load(database_url=url).postgres_url == url
    (tmp_path / "url").write_text("postgresql://u:p@h/n\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))
    assert load().postgres_url == "postgresql://u:p@h/n"
    monkeypatch.setenv("DATABASE_URL", "")
    assert load().postgres_url == "postgresql://u:p@h/n"


COLLECTOR = "http://collector:4318"


def test_where_traces_go_is_checked_without_telling_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(otel_exporter_otlp_endpoint=COLLECTOR).traces_on
    for wrong in ("collector:4318", "http://canary:canary@host", "http://host/?canary", "grpc://host"):
        (fault,) = faults_of(otel_exporter_otlp_endpoint=wrong)
        assert fault.startswith("OTEL_EXPORTER_OTLP_ENDPOINT: ")
        assert "canary" not in fault
    for name, value in (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not load(otel_exporter_otlp_endpoint=COLLECTOR).traces_on
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    (fault,) = faults_of(otel_exporter_otlp_endpoint=COLLECTOR)
    assert "http/protobuf" in fault


@pytest.mark.parametrize("dsn", ["https://sentry", "https://canary@host", "ftp://canary@host/1", "canary"])
def test_a_dsn_is_checked_without_telling_it(dsn: str) -> None:
    (fault,) = faults_of(sentry_dsn=dsn)
    assert fault.startswith("SENTRY_DSN: ")
    assert "canary" not in fault


def test_what_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    faults = faults_of(otel_exporter_otlp_endpoint=COLLECTOR, sentry_dsn="https://key@sentry.example.com/1")
    assert faults == [
        "OTEL_EXPORTER_OTLP_ENDPOINT: needs packages that are absent: `make install`, or pip install '.[tracing]'",
        "SENTRY_DSN: needs a package that is absent: `make install`, or pip install '.[sentry]'",
    ]
