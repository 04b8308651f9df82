"""The composition root: the one place that builds objects from settings and wires the roles.

Nothing is built at import. Everything that is opened here is closed here, in the opposite order.
"""

from comfy_api_service.bootstrap.backups import back_up, bring_back, inspect, verify
from comfy_api_service.bootstrap.folder import DataFolderInUse, DataFolderUnusable
from comfy_api_service.bootstrap.parts import People, backends, migrate, open_hook, people, s3_bucket
from comfy_api_service.bootstrap.reporting import log_processors
from comfy_api_service.bootstrap.service import Service, WorkerService, api, service, worker

__all__ = [
    "DataFolderInUse",
    "DataFolderUnusable",
    "People",
    "Service",
    "WorkerService",
    "api",
    "back_up",
    "backends",
    "bring_back",
    "inspect",
    "log_processors",
    "migrate",
    "open_hook",
    "people",
    "s3_bucket",
    "service",
    "verify",
    "worker",
]
