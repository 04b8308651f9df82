"""Redis or Valkey: asked once, judged by a pure function."""

import re
import socket
from typing import Final

from comfy_api_service.cli.causes import in_words, system_error
from comfy_api_service.cli.doctor.finding import Finding, fault, ok
from comfy_api_service.domain.urls import without_password
from comfy_api_service.redis_link.address import RedisAddress, parse
from comfy_api_service.redis_link.probe import SECONDS, Probe, Reach, probe

OLDEST: Final = (6, 2)
"""Of Redis; every Valkey is newer."""
RIGHTS: Final = "~cui:* &cui:* +@connection +@read +@write +@pubsub +@scripting +info"


async def examine(url: str) -> Finding:
    address = parse(url)
    return judge(url, address, await probe(address))


def judge(url: str, address: RedisAddress, found: Probe) -> Finding:
    subject = f"Redis {without_password(url)}"
    if found.reach is Reach.ANSWERS:
        return _answers(subject, found)
    if found.reach is Reach.SILENT:
        return fault(
            subject,
            f"no answer within {SECONDS:g} s",
            "Check whether it hangs, whether a firewall stands between, and that rediss:// is only said of a port "
            "with TLS; restart it.",
        )
    if found.reach is Reach.NO_SERVICE:
        return fault(
            subject,
            f"no sentinel there knows a living master of {address.service}",
            "Correct hosts, ports and the name of the service in REDIS_URL; `SENTINEL MASTERS` lists what a "
            "sentinel knows. One that asks for a password needs ?sentinel_password=…",
        )
    if found.reach is Reach.LOGIN:
        return _login(subject, address)
    if found.reach is Reach.OTHER:
        return fault(
            subject,
            "something answers there, but it does not speak the protocol of Redis",
            "Correct the port in REDIS_URL (6379 if none was chosen); a port with TLS needs rediss://.",
        )
    return _fails(subject, address, found.fault)


def _login(subject: str, address: RedisAddress) -> Finding:
    if address.login.password is None:
        return fault(
            subject,
            "it asks for a password",
            "Put it into REDIS_URL: redis://:password@host, or user:password.",
        )
    return fault(
        subject,
        "it refuses the user or the password",
        "Correct them in REDIS_URL; @, / and : in a password are written %40, %2F and %3A. If the server has no "
        "password at all, leave it out.",
    )


def _fails(subject: str, address: RedisAddress, error: Exception | None) -> Finding:
    cause = None if error is None else system_error(error)
    if isinstance(cause, ConnectionRefusedError | FileNotFoundError):
        where = "socket" if address.path is not None else "port"
        return fault(
            subject,
            "nothing listens there: it is down, or elsewhere",
            f"Start it (`valkey-server`, `redis-server`), or correct the {where} in REDIS_URL.",
        )
    if isinstance(cause, socket.gaierror):
        return fault(
            subject, "its host name is not known", "Correct REDIS_URL, or the name service of this machine."
        )
    what = "the connection is closed at once" if error is None or cause is None else in_words(error)
    return fault(
        subject,
        f"the connection fails: {what}",
        "Check that the port speaks TLS if REDIS_URL begins with rediss://, and does not if it begins with "
        "redis://; that ssl_ca_certs names the authority of its certificate; and that the database exists.",
    )


def _answers(subject: str, found: Probe) -> Finding:
    if found.name == "Redis" and _is_old(found.version):
        return fault(
            subject, f"Redis {found.version} is too old", "Update it to 6.2 or newer, or to any Valkey."
        )
    if found.cluster:
        return fault(
            subject,
            "it is a node of a cluster, whose keys are on several servers",
            "Use a single server, or one with replicas and sentinels: little is kept there.",
        )
    if found.replica:
        return fault(
            subject, "it is a replica and refuses to write", "Set REDIS_URL to the master, or to sentinels."
        )
    if found.lacking:
        return fault(
            subject,
            f"its user may not {'; '.join(found.lacking)}",
            f"Give it the rights: ACL SETUSER <user> {RIGHTS}",
        )
    if found.full:
        return fault(
            subject,
            "its memory is full: it keeps nothing new",
            "Raise maxmemory, or set maxmemory-policy to volatile-ttl.",
        )
    return ok(subject, f"{found.name} {found.version or 'of a version that its user may not ask for'}")


def _is_old(version: str | None) -> bool:
    number = re.match(r"(\d+)\.(\d+)", version or "")
    return number is not None and (int(number.group(1)), int(number.group(2))) < OLDEST
