"""What the routes call. Built by the composition root, handed to `build_app`, read through `services_of`."""

from dataclasses import dataclass

from comfy_api_service.domain.clock import Clock
from comfy_api_service.services.access import Access
from comfy_api_service.services.backends import Backends
from comfy_api_service.services.batches import Batches
from comfy_api_service.services.health import Health
from comfy_api_service.services.inputs import Inputs
from comfy_api_service.services.jobs import Jobs
from comfy_api_service.services.keys import Keys
from comfy_api_service.services.logins import Logins
from comfy_api_service.services.models import Models
from comfy_api_service.services.overview import Overview
from comfy_api_service.services.results import Results
from comfy_api_service.services.submit import Submitter
from comfy_api_service.services.throttle import Throttle
from comfy_api_service.services.uploads import Uploads
from comfy_api_service.services.usage import Usages
from comfy_api_service.services.users import Users
from comfy_api_service.services.watch import Watcher
from comfy_api_service.services.webhooks import Webhooks
from comfy_api_service.services.workflows import Workflows
from comfy_api_service.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class ApiServices:
    """One field a use case."""

    access: Access
    throttle: Throttle
    logins: Logins
    keys: Keys
    users: Users
    usages: Usages
    uploads: Uploads
    backends: Backends
    overview: Overview
    submitter: Submitter
    jobs: Jobs
    results: Results
    watcher: Watcher
    batches: Batches
    inputs: Inputs
    webhooks: Webhooks
    workflows: Workflows
    models: Models
    health: Health
    metrics: Metrics
    clock: Clock
