"""Steady: callers at an even pace, each of whom waits for a picture before asking for the next."""

from locust import task
from tests.load.profiles.calls import Caller


class Steady(Caller):
    @task
    def job(self) -> None:
        self.whole()
