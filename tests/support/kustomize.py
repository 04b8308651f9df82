"""What `kustomize build` makes of the folders in deploy/kubernetes, as far as they use it; a test holds it to the tool.

Knows resources, components, labels, images, generated ConfigMaps (without the hash in their names), and JSON patches.
Any other word is refused: it would be ignored.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

KUBERNETES: Final = Path(__file__).parents[2] / "deploy" / "kubernetes"
Object = dict[str, Any]
_KNOWN: Final = frozenset(
    [
        "apiVersion",
        "kind",
        "namespace",
        "resources",
        "components",
        "labels",
        "images",
        "configMapGenerator",
        "patches",
    ]
)
_CLUSTER_WIDE: Final = ("Namespace",)


def build(folder: str) -> list[Object]:
    """The objects of an overlay, by its path below deploy/kubernetes."""
    return _build((KUBERNETES / folder).resolve(), [])


def documents(path: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def pod_of(found: Object) -> Object | None:
    """The pod's template in it, if it has one."""
    spec = found.get("spec", {})
    if found["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template = spec.get("template") if found["kind"] != "ScaledObject" else None
    return template if isinstance(template, dict) else None


def containers(found: Object) -> Iterator[Object]:
    """Those of its pod, sidecars first."""
    pod = pod_of(found)
    if pod is not None:
        yield from pod["spec"].get("initContainers", [])
        yield from pod["spec"]["containers"]


def _build(folder: Path, objects: list[Object]) -> list[Object]:
    """`objects`: for a component, what it changes."""
    told = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    unknown = told.keys() - _KNOWN
    assert not unknown, f"{folder.name}: {unknown}"
    objects = list(objects)
    for name in told.get("resources", []):
        path = folder / name
        objects += _build(path.resolve(), []) if path.is_dir() else documents(path)
    for name in told.get("components", []):
        objects = _build((folder / name).resolve(), objects)
    for generator in told.get("configMapGenerator", []):
        _generate(generator, objects)
    for patch in told.get("patches", []):
        _patch(folder, patch, objects)
    for found in objects:
        _transform(found, told)
    return objects


def _transform(found: Object, told: Object) -> None:
    for label in told.get("labels", []):
        _label(found, label)
    for image in told.get("images", []):
        for container in containers(found):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    if "namespace" in told and found["kind"] not in _CLUSTER_WIDE:
        found["metadata"]["namespace"] = told["namespace"]


def _generate(told: Object, objects: list[Object]) -> None:
    data = dict(literal.split("=", 1) for literal in told["literals"])
    there = [one for one in objects if one["kind"] == "ConfigMap" and one["metadata"]["name"] == told["name"]]
    if told.get("behavior") == "merge":
        there[0]["data"] |= data
    else:
        assert not there
        objects.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": told["name"]}, "data": data}
        )


def _label(found: Object, told: Object) -> None:
    assert told.keys() <= {"pairs", "includeTemplates"}
    found["metadata"].setdefault("labels", {}).update(told["pairs"])
    pod = pod_of(found)
    if told.get("includeTemplates") and pod is not None:
        pod.setdefault("metadata", {}).setdefault("labels", {}).update(told["pairs"])
        if found["kind"] == "CronJob":
            job = found["spec"]["jobTemplate"]
            job.setdefault("metadata", {}).setdefault("labels", {}).update(told["pairs"])
        for claim in found["spec"].get("volumeClaimTemplates", []):
            claim["metadata"].setdefault("labels", {}).update(told["pairs"])


def _patch(folder: Path, told: Object, objects: list[Object]) -> None:
    text = told["patch"] if "patch" in told else (folder / told["path"]).read_text(encoding="utf-8")
    target = told["target"]
    meant = [one for one in objects if _is_meant(one, target)]
    for found in meant:
        for step in yaml.safe_load(text):
            _step(found, step)


def _is_meant(found: Object, target: Object) -> bool:
    assert target.keys() <= {"kind", "name", "labelSelector"}
    label, _, value = target.get("labelSelector", "=").partition("=")
    return (
        re.fullmatch(target.get("kind", ".*"), found["kind"]) is not None
        and re.fullmatch(target.get("name", ".*"), found["metadata"]["name"]) is not None
        and (not label or found["metadata"].get("labels", {}).get(label) == value)
    )


def _step(found: Object, step: Object) -> None:
    *above, last = step["path"].strip("/").split("/")
    place: Any = found
    for word in above:
        place = place[int(word)] if isinstance(place, list) else place[word]
    if step["op"] == "remove":
        del place[last]
    elif isinstance(place, list):
        assert (step["op"], last) == ("add", "-")
        place.append(yaml.safe_load(yaml.safe_dump(step["value"])))
    else:
        assert step["op"] == "add" or last in place, f"nothing at {step['path']}"
        place[last] = yaml.safe_load(yaml.safe_dump(step["value"]))
