"""The inventories of two real servers, as they were recorded."""

import json
from functools import lru_cache
from importlib import resources

from comfy_api_service.comfyui.inventory import parse
from comfy_api_service.domain.inventory import Inventory


@lru_cache
def inventory(version: str) -> Inventory:
    source = resources.files("comfy_api_service.simulator").joinpath("data", f"object_info-{version}.json")
    return parse(json.loads(source.read_bytes()))
