import pytest


@pytest.fixture(autouse=True)
def _on_either_database(dialect: str) -> None:
    """Every test of the engine runs on both."""
