"""A production REST API in front of ComfyUI."""

__version__ = "0.1.0"
