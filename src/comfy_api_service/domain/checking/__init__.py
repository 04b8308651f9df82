"""The check of a whole graph before it is queued. Pure: what it is checked against is given.

It stands beside `domain.graph`, not in it, because it looks into an inventory, which is made of graphs' parts.
"""

from comfy_api_service.domain.checking.check import check_graph
from comfy_api_service.domain.checking.rules import Checked, FileInput, Rules

__all__ = ["Checked", "FileInput", "Rules", "check_graph"]
