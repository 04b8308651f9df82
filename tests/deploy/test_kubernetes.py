"""The Kubernetes manifests: valid, closed, hardened, and in step with image, settings, commands and metrics."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from tests.support.comfyui_image import started
from tests.support.commands import check_command, known_settings
from tests.support.image import argument, only, pairs
from tests.support.kustomize import KUBERNETES, Object, _build, build, containers, documents, pod_of
from tests.support.monitoring import MONITORING
from tests.support.postgres import PostgresServer
from tests.support.tools import postgres_tools

from comfy_api_service.settings import load as load_settings
from comfy_api_service.telemetry import Metrics

SCHEMAS = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "kubernetes" / "schemas.json").read_text(encoding="utf-8")
)
OVERLAYS = ("one-node", "production", "production-gpu")
OWN = "registry.example.com/comfy-api-service:0.1.0"
COMFYUI_PORT = 8188
KEY = "5d0c7a1e94b83f26d75e0a9c41f8b3672e6d9f05"
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@cache
def built(overlay: str) -> tuple[Object, ...]:
    return tuple(build(f"overlays/{overlay}"))


def of(overlay: str, kind: str) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in built(overlay) if one["kind"] == kind}


def pods(overlay: str) -> Iterator[tuple[str, Object, Object]]:
    """Name, object and template of what makes pods."""
    for one in built(overlay):
        pod = pod_of(one)
        if pod is not None:
            yield one["metadata"]["name"], one, pod


@cache
def validator(kind: str) -> Any:
    return jsonschema_rs.validator_for({**SCHEMAS["kinds"][kind], "$defs": SCHEMAS["$defs"]})


def faults(found: Object) -> list[str]:
    errors = validator(f"{found['apiVersion']}/{found['kind']}").iter_errors(found)
    return [f"{found['kind']} {list(error.instance_path)}: {error.message}" for error in errors]


@each_overlay
def test_every_object_is_what_its_schema_says(overlay: str) -> None:
    assert [fault for one in built(overlay) for fault in faults(one)] == []
    names = [(one["kind"], one["metadata"]["name"]) for one in built(overlay)]
    assert len(names) == len(set(names))


def test_the_check_against_the_schemas_finds_misspelt_words_and_wrong_types() -> None:
    [api] = documents(KUBERNETES / "overlays" / "production" / "api.yaml")[:1]
    assert faults(api) == []
    api["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    api["spec"]["replicas"] = "two"
    assert len(faults(api)) == 2
    [scaled] = documents(KUBERNETES / "components" / "autoscaling" / "worker.yaml")
    scaled["spec"]["minReplicas"] = 1
    assert faults(scaled)


def test_the_template_of_the_secret_has_what_pods_read_and_no_secret() -> None:
    [secret] = documents(KUBERNETES / "overlays" / "production" / "secret.example.yaml")
    assert faults(secret) == []
    assert set(secret["stringData"].values()) == {""}
    read = {
        Path(entry["value"]).name
        for _, one, _ in pods("production")
        for container in containers(one)
        for entry in container.get("env", [])
        if entry.get("value", "").startswith("/run/secrets/")
    }
    assert secret["stringData"].keys() == read
    assert "secret.yaml" in (KUBERNETES.parents[1] / ".gitignore").read_text()


@each_overlay
@pytest.mark.skipif(
    not (shutil.which("kustomize") or shutil.which("kubectl")), reason="needs kustomize or kubectl on PATH"
)
def test_what_is_checked_here_is_what_the_tool_builds(overlay: str) -> None:
    tool = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    made = subprocess.run(
        [*tool, KUBERNETES / "overlays" / overlay], capture_output=True, check=True, text=True
    ).stdout
    names = "|".join(of(overlay, "ConfigMap"))
    plain = re.sub(rf"\b({names})-[a-z0-9]{{10}}\b", r"\1", made)

    def by_name(objects: Any) -> dict[tuple[str, str], Object]:
        return {(one["kind"], one["metadata"]["name"]): one for one in objects}

    assert by_name(yaml.safe_load_all(plain)) == by_name(built(overlay))


@each_overlay
def test_every_pod_is_confined(overlay: str) -> None:
    """As the namespace asks (restricted), and more."""
    [namespace] = of(overlay, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    user, _, group = only("USER").rest.partition(":")
    for name, one, pod in pods(overlay):
        spec, context = pod["spec"], pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (
            int(user),
            int(group),
            int(group),
        )
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False, "they would be read as settings"
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert all(
            volume.keys() & {"emptyDir", "secret", "persistentVolumeClaim"} for volume in spec["volumes"]
        )
        for container in containers(one):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert "hostPort" not in json.dumps(container)


@each_overlay
def test_every_mount_has_its_volume_and_the_image_its_two_folders(overlay: str) -> None:
    for name, one, pod in pods(overlay):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
        for container in containers(one):
            mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounted.keys() <= volumes
            if container["image"] == OWN and container["args"][0] in ("serve", "api", "worker", "backup"):
                assert {pairs("ENV")["DATA_DIR"], "/tmp"} <= set(mounted.values()), name


@each_overlay
def test_the_services_containers_are_the_images_entry_point_with_a_command_of_it(overlay: str) -> None:
    assert argument("VERSION") == OWN.rpartition(":")[2]
    seen = set()
    for _, one, _ in pods(overlay):
        for container in containers(one):
            if container["image"] == OWN:
                assert "command" not in container, "the entry point gets signals itself"
                check_command(container["args"])
                seen.add(container["args"][0])
    assert seen >= ({"serve", "backup"} if overlay == "one-node" else {"api", "worker", "migrate"})


def environment(overlay: str, container: Object) -> dict[str, str]:
    """Its variables, as Kubernetes puts them together; the pod's own name is one."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= of(overlay, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    return found | {entry["name"]: entry.get("value", "worker-0") for entry in container.get("env", [])}


@each_overlay
def test_its_environment_makes_good_settings(
    overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "database_url": "postgresql://comfy:x@db/comfy",
        "redis_url": "redis://cache",
        "s3_access_key": "id",
        "s3_secret_key": "x",
        "secret_key": KEY,
        "metrics_token": "x",
    }.items():
        (tmp_path / name).write_text(text)
    for name, one, pod in pods(overlay):
        for container in containers(one):
            if container["image"] != OWN:
                continue
            told = environment(overlay, container)
            assert told.keys() <= known_settings(), name
            with monkeypatch.context() as patch:
                for variable, value in told.items():
                    patch.setenv(variable, value.replace("/run/secrets/comfy-api", str(tmp_path)))
                settings = load_settings()
            if container["args"][0] in ("api", "serve", "worker"):
                assert settings.auth_enabled, "it listens on all addresses"
                stop = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
                spare = pod["spec"]["terminationGracePeriodSeconds"] - settings.shutdown_grace - stop
                assert spare >= 15, f"{name} is killed before it has drained"
            if container["args"][0] == "worker":
                assert settings.metrics_port == container["ports"][0]["containerPort"]
                assert settings.node_id == "worker-0"
                claim = one["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
                assert int(claim.removesuffix("Gi")) << 30 > settings.parked_limit


@each_overlay
def test_no_secret_is_in_plain_sight(overlay: str) -> None:
    for found in of(overlay, "ConfigMap").values():
        assert not [
            name for name in found["data"] if re.search(r"PASSWORD|SECRET|TOKEN|KEY|DATABASE_URL|REDIS", name)
        ]
    for _, one, _ in pods(overlay):
        for container in containers(one):
            for entry in container.get("env", []):
                if re.search(r"PASSWORD|SECRET|TOKEN|KEY|DATABASE_URL|REDIS", entry["name"]):
                    assert entry["name"].endswith("_FILE")


@each_overlay
def test_what_serves_is_probed_and_what_answers_callers_leaves_before_it_stops(overlay: str) -> None:
    for name, one, pod in pods(overlay):
        for container in pod["spec"]["containers"]:
            if one["kind"] not in ("Deployment", "StatefulSet"):
                continue
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            start = container["startupProbe"]
            assert start["periodSeconds"] * start["failureThreshold"] >= 3600, "it may have to migrate"
            for probe in ("startupProbe", "livenessProbe"):
                assert container[probe]["httpGet"]["path"] == "/health/live"
                assert container[probe]["httpGet"]["port"] in ports
            if "http" in ports:
                assert ports["http"] == int(pairs("ENV")["PORT"])
                assert container["readinessProbe"]["httpGet"] == {
                    "path": "/health/ready?local=true",  # not of what all pods share: all would be taken out
                    "port": "http",
                }
                assert container["lifecycle"]["preStop"]["sleep"]["seconds"] > 0, name
            assert (
                one["spec"]["template"]["metadata"]["labels"].items()
                >= one["spec"]["selector"]["matchLabels"].items()
            )


@each_overlay
def test_services_budgets_and_scalers_mean_something_that_is_there(overlay: str) -> None:
    labels = [pod["metadata"]["labels"].items() for _, _, pod in pods(overlay)]
    for service in of(overlay, "Service").values():
        assert any(service["spec"]["selector"].items() <= one for one in labels)
    for budget in of(overlay, "PodDisruptionBudget").values():
        assert any(budget["spec"]["selector"]["matchLabels"].items() <= one for one in labels)
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    for one in of(overlay, "StatefulSet").values():
        assert one["spec"]["serviceName"] in of(overlay, "Service")
    for ingress in of(overlay, "Ingress").values():
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                assert path["backend"]["service"]["name"] in of(overlay, "Service")
    for scaler in [*of(overlay, "ScaledObject").values(), *of(overlay, "HorizontalPodAutoscaler").values()]:
        target = scaler["spec"]["scaleTargetRef"]
        assert "replicas" not in of(overlay, target["kind"])[target["name"]]["spec"], "two would set it"
    if overlay != "one-node":
        assert {"api", "worker"} <= of(overlay, "PodDisruptionBudget").keys()


def test_an_upgrade_by_the_documents_commands_is_in_order() -> None:
    """The schema alone, then all but the API, then the rest."""
    page = (KUBERNETES.parents[1] / "docs" / "DEPLOYMENT.md").read_text(encoding="utf-8")
    steps = re.findall(r"^kubectl apply -k \. *(?:--selector ([\w./]+)(!?=)(\w+))?", page, re.MULTILINE)
    taken = []
    for label, is_, value in [step for step in steps if step[0]] + steps[-1:]:
        taken.append(
            {
                (one["kind"], one["metadata"]["name"])
                for one in built("production")
                if not label or (one["metadata"].get("labels", {}).get(label) == value) is (is_ == "=")
            }
        )
    schema, workers, rest = taken
    assert schema == {("Job", "migrate")}
    assert {("StatefulSet", "worker"), ("ConfigMap", "comfy-api"), ("Service", "worker")} <= workers
    assert rest - workers == {("Deployment", "api")}


def test_workers_are_scaled_by_metrics_that_exist() -> None:
    scaler = of("production-gpu", "ScaledObject")["worker"]["spec"]
    query = scaler["triggers"][0]["metadata"]["query"]
    families = {family.name for family in Metrics().registry.collect()}
    named = set(re.findall(r"comfyui_\w+", query))
    assert "comfyui_queue_depth" in named
    assert named <= families
    assert scaler["minReplicaCount"] >= 1, "nobody would tell how many wait"


def test_workers_whose_figures_are_away_are_not_taken_away() -> None:
    scaler = of("production-gpu", "ScaledObject")["worker"]["spec"]
    assert scaler["triggers"][0]["metadata"]["ignoreNullValues"] == "false", "nothing would be an empty queue"
    assert scaler["fallback"]["behavior"] == "currentReplicasIfHigher"


def _monitors() -> Iterator[tuple[str, Object]]:
    """Overlay and monitor; those of `production` are its component's."""
    for monitor in of("production-gpu", "PodMonitor").values():
        yield "production", monitor
    yield from (("one-node", one) for one in documents(KUBERNETES / "overlays" / "one-node" / "monitor.yaml"))


def test_figures_are_asked_for_with_their_token_in_the_jobs_that_rules_ask_for() -> None:
    jobs = {}
    for overlay, monitor in _monitors():
        assert faults(monitor) == []
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        [pod] = [pod for _, _, pod in pods(overlay) if wanted <= pod["metadata"]["labels"].items()]
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        [container] = pod["spec"]["containers"]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
        told = {entry["name"]: entry.get("value", "") for entry in container["env"]}
        token = Path(told["METRICS_TOKEN_FILE"]).name if "METRICS_TOKEN_FILE" in told else None
        assert endpoint.get("authorization", {}).get("credentials", {}).get("key") == token
        [relabeled] = endpoint["relabelings"]
        assert relabeled["targetLabel"] == "job"
        jobs[overlay, monitor["metadata"]["name"]] = relabeled["replacement"], endpoint["port"]
    assert jobs == {
        ("production", "api"): ("comfy-api", "http"),
        ("production", "worker"): ("comfy-worker", "metrics"),
        ("one-node", "serve"): ("comfy-api", "http"),
    }
    plain = yaml.safe_load((MONITORING / "prometheus.kubernetes.yml").read_text(encoding="utf-8"))
    for job in plain["scrape_configs"]:
        meant = job["relabel_configs"][0]["regex"]
        found = {name for (_, name), where in jobs.items() if re.fullmatch(meant, f"{name};{where[1]}")}
        assert found == {name for (_, name), where in jobs.items() if where[0] == job["job_name"]}
        assert job["kubernetes_sd_configs"][0]["namespaces"]["names"] == list(of("production", "Namespace"))
    for overlay in OVERLAYS:
        assert "prometheus.io" not in json.dumps(built(overlay)), "they are scraped without the token"


def reaches(policy: Object, port: int) -> bool:
    """Whether a policy's egress lets the port through."""
    rules = policy["spec"].get("egress", [])
    return any(port == one["port"] for rule in rules for one in rule.get("ports", [])) or any(
        "ports" not in rule for rule in rules
    )


def meant(policy: Object, labels: dict[str, str]) -> bool:
    selector = policy["spec"]["podSelector"]
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", [])
    )


@each_overlay
def test_comfyui_is_reached_by_those_that_drive_it_alone(overlay: str) -> None:
    policies = of(overlay, "NetworkPolicy")
    assert policies["deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, one, pod in pods(overlay):
        labels = pod["metadata"]["labels"]
        drives = labels.get("comfy-api/drives-comfyui") == "true"
        ways = [policy for policy in policies.values() if meant(policy, labels)]
        assert any(reaches(policy, COMFYUI_PORT) for policy in ways) is drives, name
        assert drives is (name in ("worker", "serve"))
        for policy in ways:
            for rule in policy["spec"].get("ingress", []):
                assert rule["from"], "everybody"
                assert COMFYUI_PORT not in [port["port"] for port in rule["ports"]]
        for container in containers(one):
            if container["name"] == "comfyui":  # in the pod alone
                assert "ports" not in container
                assert container["args"][container["args"].index("--listen") + 1] == "127.0.0.1"
                assert container["restartPolicy"] == "Always", "a sidecar, stopped after the service"
    private = policies["comfyui"]["spec"]
    assert private["ingress"] == [
        {
            "from": [{"podSelector": {"matchLabels": {"comfy-api/drives-comfyui": "true"}}}],
            "ports": [{"protocol": "TCP", "port": COMFYUI_PORT}],
        }
    ]
    assert "egress" not in private


@pytest.mark.parametrize("component", ["comfyui", "simulator"])
def test_a_comfyui_beside_the_service_is_the_one_that_it_drives(component: str) -> None:
    for one in _with("production", component), _with("one-node", component):
        assert faults(one) == []
        sidecar, service = containers(one)
        told = {entry["name"]: entry.get("value") for entry in service["env"]}
        assert told["COMFYUI_URL"] == f"http://127.0.0.1:{COMFYUI_PORT}"
        assert sidecar["args"][sidecar["args"].index("--port") + 1] == str(COMFYUI_PORT)
        if component == "simulator":
            check_command(sidecar["args"])


def test_comfyui_starts_on_an_empty_volume_beside_its_own_nodes_and_models(tmp_path: Path) -> None:
    sidecar, _ = containers(_with("production", "comfyui"))
    told = started([*sidecar["command"], *sidecar["args"]], tmp_path)
    assert told["--port"] == str(COMFYUI_PORT)
    mounted = {mount["name"]: mount["mountPath"] for mount in sidecar["volumeMounts"]}
    assert mounted["models"] == f"{sidecar['workingDir']}/models"
    assert mounted["comfyui"] == "/comfyui"


def _with(overlay: str, component: str) -> Object:
    objects = _build(KUBERNETES / "components" / component, build(f"overlays/{overlay}"))
    return next(one for one in objects if one["kind"] == "StatefulSet")


def test_the_nightly_backup_is_whole_and_only_the_newest_are_kept(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """Its script as it stands, but for the paths, against a real server."""
    [container] = containers(of("production", "CronJob")["backup"])
    (tmp_path / "database_url").write_text(postgres.url("template_of_tests"))
    for day in range(20):
        (tmp_path / f"comfy-202001{day + 1:02}T000000Z.dump").touch()
    script = (
        container["args"][0]
        .replace("/run/secrets/comfy-api", str(tmp_path))
        .replace("/backups", str(tmp_path))
    )
    environ = {"PATH": f"{postgres_tools()}:{os.environ['PATH']}"}
    subprocess.run([*container["command"], script], env=environ, check=True, capture_output=True)
    kept = sorted(path.name for path in tmp_path.glob("comfy-*"))
    assert len(kept) == 14
    assert kept[-1].startswith(f"comfy-{datetime.now(UTC):%Y}")
    (tmp_path / "database_url").write_text("postgresql://nobody@127.0.0.1:9/x")
    assert subprocess.run(
        [*container["command"], script], env=environ, capture_output=True, check=False
    ).returncode
    assert sorted(path.name for path in tmp_path.glob("comfy-*")) == kept
