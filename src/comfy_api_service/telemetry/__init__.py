"""What the service tells about itself: metrics and logs. Never prompts, secrets or paths."""

from comfy_api_service.telemetry.backends import BackendFigures
from comfy_api_service.telemetry.logs import configure_logs
from comfy_api_service.telemetry.metrics import Metrics

__all__ = ["BackendFigures", "Metrics", "configure_logs"]
