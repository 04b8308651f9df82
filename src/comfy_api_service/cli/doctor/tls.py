"""The service's own certificate: fit for its key, and valid today."""

import ssl
import time
from pathlib import Path
from typing import Final

from comfy_api_service.cli.doctor.finding import Finding, fault, ok, warning
from comfy_api_service.cli.faults import Fault
from comfy_api_service.cli.tls import server_context

SUBJECT: Final = "TLS certificate"
SOON: Final = 14 * 86_400
"""Seconds before its end at which a certificate should have been renewed."""
_RENEW: Final = "Renew it, and start the service again: it is read at start."
_EXPIRED: Final = 10
_NOT_YET: Final = 9
"""OpenSSL's numbers for these faults of a certificate."""


def certificate(cert: Path, key: Path) -> Finding:
    try:
        ends = _ends(server_context(cert, key), cert)
    except Fault as error:
        return fault(SUBJECT, error.message, error.remedy)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            return fault(SUBJECT, "it has expired", _RENEW)
        if error.verify_code == _NOT_YET:
            return fault(SUBJECT, "it is not valid yet", "Set this machine's clock, or wait.")
        return fault(SUBJECT, error.verify_message, "Ask the authority for a certificate of a server.")
    shown = time.strftime("%Y-%m-%d", time.gmtime(ends))
    if ends - time.time() < SOON:
        return warning(SUBJECT, f"it expires on {shown}", _RENEW)
    return ok(SUBJECT, f"valid until {shown}")


def _ends(server: ssl.SSLContext, cert: Path) -> float:
    """The Unix time at which it expires, learned as a client learns it: by a handshake, in memory.

    Raises `ssl.SSLCertVerificationError` for what a client that trusts this very certificate would refuse.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False  # callers know by which name they call; this does not
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cert)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, there)
    answering = server.wrap_bio(there, back, server_side=True)
    while not (_shaken(asking) & _shaken(answering)):
        pass
    told = asking.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(told["notAfter"])))


def _shaken(side: ssl.SSLObject) -> bool:
    """One side goes on as far as it can; true once it is done."""
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
