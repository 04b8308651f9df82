"""The Compose files: valid, closed to the outside, hardened, and in step with settings, commands and secrets."""

import json
import re
import stat
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from tests.support.comfyui_image import started
from tests.support.commands import check_command, known_settings
from tests.support.compose import DEPLOY, environment, handed, load, own, variables_of
from tests.support.image import only

from comfy_api_service.settings import Settings
from comfy_api_service.settings import load as load_settings

Make = Callable[[str, Mapping[str, str]], Settings]
SCHEMA = Path(__file__).parents[1] / "fixtures" / "compose" / "compose-spec.json"
FILES = ("compose.yaml", "compose.tls.yaml")
VARIABLES = {
    "COMFYUI_URL": "http://gpu1:8188,http://gpu2:8188",
    "API_DOMAIN": "api.example.com",
    "STORE_DOMAIN": "store.example.com",
}
STACK = load("compose.yaml", VARIABLES)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
OWN = dict(own(SERVICES))
KEPT = ("postgres", "valkey", "store")
ROLES = ("api", "worker")
EXAMPLE = dict(
    re.findall(r"^#?([A-Z_0-9]+)=(.*)", (DEPLOY / "example.env").read_text(encoding="utf-8"), re.MULTILINE)
)
"""As if no line were a comment."""
OF_THE_STACK = {
    *("HOST", "PORT", "DATA_DIR", "SHUTDOWN_GRACE"),
    *("DATABASE_URL_FILE", "REDIS_URL_FILE", "SECRET_KEY_FILE"),
    *("S3_ENDPOINT", "S3_REGION", "S3_BUCKET", "S3_PUBLIC_URL", "S3_ACCESS_KEY_FILE", "S3_SECRET_KEY_FILE"),
}


@pytest.mark.parametrize("name", FILES)
def test_it_is_what_the_compose_specification_says(name: str) -> None:
    validator = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text(encoding="utf-8")))
    faults = [
        f"{list(error.instance_path)}: {error.message}"
        for error in validator.iter_errors(load(name, VARIABLES))
    ]
    assert faults == []


def test_the_check_against_the_specification_finds_a_misspelt_key() -> None:
    broken = load("compose.yaml", VARIABLES)
    broken["services"]["api"]["helthcheck"] = {}
    assert not jsonschema_rs.is_valid(json.loads(SCHEMA.read_text(encoding="utf-8")), broken)


def test_it_does_not_start_without_a_comfyui() -> None:
    with pytest.raises(KeyError, match="COMFYUI_URL"):
        load("compose.yaml", {})


def test_the_example_names_every_variable_and_settings_besides() -> None:
    named = EXAMPLE.keys() - {"COMPOSE_FILE", "COMPOSE_PROFILES"}
    read = {variable for name in FILES for variable in variables_of(name)}
    assert read <= named
    assert named - read <= known_settings()
    assert named - read, "some that the file does not name"


def test_only_the_proxy_is_published_and_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"proxy"}
    assert all(port.startswith("127.0.0.1:") for port in published["proxy"])
    assert not [name for name, service in SERVICES.items() if "network_mode" in service]


@pytest.mark.parametrize("name", KEPT)
def test_what_keeps_things_is_on_inner_networks_alone(name: str) -> None:
    assert all(STACK["networks"][network].get("internal") for network in SERVICES[name]["networks"])


def test_the_api_shares_no_network_with_a_comfyui() -> None:
    for name in ("simulator", "comfyui"):
        assert not set(SERVICES["api"]["networks"]) & set(SERVICES[name]["networks"])
        assert set(SERVICES["worker"]["networks"]) & set(SERVICES[name]["networks"])
    assert "extra_hosts" not in SERVICES["api"], "the machine's own ComfyUI"


@pytest.mark.parametrize("name", ["api", "worker"])
def test_those_who_call_others_have_a_way_out(name: str) -> None:
    """Pictures by https, prompt hooks and traces; ComfyUI servers elsewhere and receivers of webhooks."""
    inner = [STACK["networks"][network].get("internal", False) for network in SERVICES[name]["networks"]]
    assert inner.count(False) == 1


@pytest.mark.parametrize("name", sorted(OWN))
def test_its_user_may_enter_its_working_folder(name: str) -> None:
    """A tmpfs takes the mode of the image's folder, 0700, and belongs to root unless an owner is named."""
    user, _, group = only("USER").rest.partition(":")
    folder = only("WORKDIR").rest
    mounts = [mount for mount in OWN[name]["tmpfs"] if mount.startswith(folder)]
    kept = [
        volume
        for volume in OWN[name].get("volumes", [])
        if isinstance(volume, dict) and volume["target"] == folder
    ]
    assert len(mounts) + len(kept) == 1, "it is there, and writable"
    for mount in mounts:
        options = dict(option.split("=") for option in mount.partition(":")[2].split(","))
        assert options == {"uid": user, "gid": group, "mode": "0700"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_bounded_restarted_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert {"cpus", "memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()
    assert service["restart"] == ("on-failure" if name == "migrate" else "unless-stopped")
    assert service["logging"]["options"]["max-size"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "healthcheck" in service or name == "api"  # the image has its own
    if name != "postgres":  # its image begins as root, and changes owners before it steps down
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_waiting_for_health_is_for_what_tells_its_health() -> None:
    for service in SERVICES.values():
        for needed, how in service.get("depends_on", {}).items():
            check = SERVICES[needed].get("healthcheck", {})
            if how["condition"] == "service_healthy":
                assert not check.get("disable"), needed
            if how["condition"] == "service_completed_successfully":
                assert SERVICES[needed]["restart"] == "on-failure"


@pytest.mark.parametrize("name", ["api", "worker"])
def test_roles_start_behind_the_schema_and_have_time_to_drain(name: str) -> None:
    service = SERVICES[name]
    assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert int(service["stop_grace_period"].removesuffix("s")) > int(environment(service)["SHUTDOWN_GRACE"])
    assert int(service["deploy"]["replicas"]) == 2
    assert "container_name" not in service


def test_no_secret_is_in_the_environment() -> None:
    secret = re.compile(r"PASSWORD|SECRET|KEY|TOKEN|DATABASE_URL|REDIS_URL")
    for name, service in SERVICES.items():
        for variable, value in environment(service).items():
            if secret.search(variable):
                assert variable.endswith("_FILE"), f"{variable} of {name}"
                assert value.removeprefix("/run/secrets/") in service["secrets"], f"{variable} of {name}"


def test_mounted_files_are_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            if isinstance(volume, str) and volume.startswith("./"):
                path = DEPLOY / volume.split(":")[0]
                absent = path.name == "models" or (
                    "monitoring" in path.parts and not (DEPLOY / "monitoring").exists()
                )
                assert path.exists() or absent, path


def test_comfyui_is_reached_by_workers_alone_and_reaches_nobody() -> None:
    [network] = SERVICES["comfyui"]["networks"]
    assert STACK["networks"][network]["internal"] is True
    assert {name for name, service in SERVICES.items() if network in service["networks"]} == {
        "comfyui",
        "worker",
    }


def test_comfyui_starts_on_an_empty_volume_beside_its_own_nodes_and_models(tmp_path: Path) -> None:
    service = SERVICES["comfyui"]
    told = started(service["command"], tmp_path)
    assert told["--listen"] == "0.0.0.0"
    [kept, models] = service["volumes"]
    assert kept == "comfyui:/comfyui"
    assert models == f"./models:{service['working_dir']}/models:ro"


def test_figures_are_read_from_every_process_and_by_nobody_outside() -> None:
    read = {name for name, service in SERVICES.items() if "figures" in service["networks"]}
    assert read == {"api", "worker", "prometheus", "grafana", "proxy"}
    assert SERVICES["prometheus"]["networks"] == SERVICES["grafana"]["networks"] == ["figures"]
    assert STACK["networks"]["figures"]["internal"] is True
    tls = load("compose.tls.yaml", VARIABLES)["services"]["proxy"]["ports"]
    assert {port for port in [*SERVICES["proxy"]["ports"], *tls] if ":3000" in port} == {
        "127.0.0.1:3000:3000"
    }


def test_what_needs_more_is_a_profile() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {
        "simulator": ["demo"],
        "comfyui": ["comfyui"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }


def test_each_worker_has_a_folder_of_its_own() -> None:
    assert [
        volume for volume in SERVICES["worker"]["volumes"] if isinstance(volume, dict) and "source" in volume
    ] == []


def test_store_and_service_agree() -> None:
    garage = tomllib.loads((DEPLOY / "garage.toml").read_text(encoding="utf-8"))
    for role in ("api", "worker"):
        told = environment(SERVICES[role])
        assert told["S3_ENDPOINT"] == "http://store:" + garage["s3_api"]["api_bind_addr"].rpartition(":")[2]
        assert told["S3_REGION"] == garage["s3_api"]["s3_region"]
        assert told["S3_BUCKET"] == SERVICES["store"]["environment"]["GARAGE_DEFAULT_BUCKET"]
    assert garage["data_fsync"] is garage["metadata_fsync"] is True


def test_the_proxy_knows_its_upstreams() -> None:
    caddy = (DEPLOY / "Caddyfile").read_text(encoding="utf-8")
    assert re.search(r"name api\n\s+port 8000", caddy)
    assert f"reverse_proxy {environment(SERVICES['api'])['S3_ENDPOINT'].removeprefix('http://')}" in caddy
    sites = {site.rpartition(":")[2] for site in environment(SERVICES["proxy"]).values()}
    assert re.search(r"http://:3000 \{\n\s+reverse_proxy grafana:3000", caddy)
    assert {port.rpartition(":")[2] for port in SERVICES["proxy"]["ports"]} == {*sites, "3000"}


@pytest.mark.parametrize("name", ["migrate", "api", "worker", "simulator"])
def test_commands_exist(name: str) -> None:
    check_command(SERVICES[name]["command"])


def test_settings_know_the_whole_environment() -> None:
    for name in ("api", "worker", "migrate"):
        assert environment(OWN[name]).keys() <= known_settings(), name


@pytest.mark.parametrize(
    ("role", "of_role"), [("api", {"PUBLIC_URL"}), ("worker", {"METRICS_HOST", "METRICS_PORT"})]
)
def test_every_setting_may_be_a_line_of_env_but_what_the_stack_stands_on(
    role: str, of_role: set[str]
) -> None:
    beside = {"OTEL_SERVICE_NAME", "OTEL_TRACES_SAMPLER", "SSL_CERT_FILE", "HTTPS_PROXY"}
    lines = dict.fromkeys(known_settings() | beside, "of the operator")
    got = handed(role, lines)
    alone = handed(role, VARIABLES)
    assert {name for name, value in lines.items() if got.get(name) != value} == OF_THE_STACK | of_role
    assert {name: got[name] for name in OF_THE_STACK | of_role} == {
        name: alone[name] for name in OF_THE_STACK | of_role
    }


@pytest.mark.parametrize("role", ROLES)
def test_what_the_stack_stands_on_wins_by_every_name_that_it_has(role: str, make: Make) -> None:
    others = {
        "DATABASE_URL": "postgresql://elsewhere/other",
        "REDIS_URL": "redis://elsewhere",
        "SECRET_KEY": "0123456789abcdef" * 2,
        "HOST": "127.0.0.1",
        "PORT": "9",
    }
    for prefix in ("S3", "MINIO"):
        of_store = ("ENDPOINT", "BUCKET", "ACCESS_KEY", "SECRET_KEY", "REGION")
        others |= {f"{prefix}_{name}": "http://elsewhere" for name in of_store}
    assert make(role, VARIABLES | others) == make(role, VARIABLES)


@pytest.mark.parametrize("role", ROLES)
def test_the_example_makes_good_settings_with_every_line(role: str, make: Make) -> None:
    settings = make(role, EXAMPLE)
    assert settings.registration_enabled
    assert settings.tiers["pro"].images_per_day == 5
    assert settings.sentry_dsn is not None


@pytest.mark.parametrize("role", ROLES)
def test_the_example_makes_good_settings_with_any_one_line(role: str, make: Make) -> None:
    for name, value in EXAMPLE.items():
        make(role, VARIABLES | {name: value})


@pytest.mark.parametrize("role", ROLES)
def test_files_that_settings_name_are_mounted(role: str) -> None:
    assert "./files:/etc/comfy-api:ro" in SERVICES[role]["volumes"]


@pytest.mark.parametrize("name", ["api", "worker", "migrate"])
def test_the_environment_makes_good_settings(name: str, make: Make) -> None:
    settings = make(name, VARIABLES)
    assert settings.database_url is not None
    assert settings.database_url.startswith("postgresql://comfy:")


def test_every_secret_is_made_and_stays(tmp_path: Path) -> None:
    made = _make_secrets(tmp_path)
    wanted = {Path(secret["file"]).name for secret in STACK["secrets"].values()} | {"store.env"}
    assert made.keys() == wanted
    assert set(STACK["secrets"]) == {
        secret for service in SERVICES.values() for secret in service.get("secrets", [])
    }
    assert _make_secrets(tmp_path) == made
    other = _make_secrets(tmp_path / "other")
    assert not [name for name in made if made[name] == other[name]]


def test_secrets_fit_together(tmp_path: Path) -> None:
    made = _make_secrets(tmp_path)
    assert f":{made['postgres_password']}@postgres/" in made["database_url"]
    assert f":{made['valkey_password']}@valkey:" in made["redis_url"]
    assert made["valkey_conf"] == f"requirepass {made['valkey_password']}"
    store = dict(line.split("=") for line in made["store.env"].splitlines())
    assert store["GARAGE_DEFAULT_ACCESS_KEY"] == made["s3_access_key"]
    assert store["GARAGE_DEFAULT_SECRET_KEY"] == made["s3_secret_key"]
    assert re.fullmatch(r"GK[0-9a-f]{24}", made["s3_access_key"])
    assert all(re.fullmatch(r"[0-9a-f]{64}", made[name]) for name in ("s3_secret_key", "secret_key"))


def test_secrets_are_read_by_containers_and_not_by_others_of_the_machine(tmp_path: Path) -> None:
    _make_secrets(tmp_path)
    folder = tmp_path / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o444}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """The settings of a service's container, with these lines in `.env`."""
    _make_secrets(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiers.toml").write_text("[pro]\nimages_per_day = 5\n")
    (tmp_path / "sentry_dsn").write_text("https://key@sentry.example.com/1\n")
    secrets, files = str(tmp_path / "secrets"), str(tmp_path)

    def made(service: str, lines: Mapping[str, str]) -> Settings:
        with monkeypatch.context() as patch:
            for variable, value in handed(service, lines).items():
                here = value.replace("/run/secrets", secrets).replace("/etc/comfy-api", files)
                patch.setenv(variable, here)
            return load_settings()

    return made


def _make_secrets(folder: Path) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["sh", DEPLOY / "secrets.sh", folder / "secrets"], check=True, stdout=subprocess.DEVNULL)
    return {file.name: file.read_text().strip() for file in (folder / "secrets").iterdir()}
