"""The composition root: the one place that builds objects from settings and wires the roles.

Nothing is built at import. Everything that is opened here is closed here, in the opposite order.
"""

from comfy_api_service.bootstrap.folder import DataFolderInUse, DataFolderUnusable
from comfy_api_service.bootstrap.parts import People, backends, migrate, open_hook, people, s3_bucket
from comfy_api_service.bootstrap.service import Service, WorkerService, api, service, worker

__all__ = [
    "DataFolderInUse",
    "DataFolderUnusable",
    "People",
    "Service",
    "WorkerService",
    "api",
    "backends",
    "migrate",
    "open_hook",
    "people",
    "s3_bucket",
    "service",
    "worker",
]
