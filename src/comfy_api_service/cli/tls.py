"""The service's own certificate. It is read at start: a renewed one counts from the next start on."""

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from comfy_api_service.cli.faults import ExitCode, Fault

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings


def tls_of(settings: "Settings") -> ssl.SSLContext | None:
    """What https is answered with; None if the settings name no certificate. Raises `Fault`."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return server_context(settings.tls_cert_file, settings.tls_key_file)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Raises `Fault` for a pair that cannot be used, without their paths."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_pass_phrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _fault(
                "The key in TLS_KEY_FILE is not that of the certificate in TLS_CERT_FILE.",
                "Name the key that the certificate was asked for with; in TLS_CERT_FILE the service's own "
                "certificate comes first.",
            ) from None
        raise _fault(
            "TLS_CERT_FILE and TLS_KEY_FILE are not a certificate and a key in PEM.",
            "Name files with -----BEGIN CERTIFICATE----- and -----BEGIN PRIVATE KEY-----; "
            "`openssl x509 -in … -out cert.pem` and `openssl pkey -in … -out key.pem` make them.",
        ) from None
    except OSError as error:
        raise _fault(
            f"TLS_CERT_FILE or TLS_KEY_FILE cannot be read ({error.strerror}).",
            "Name files that this user can read.",
        ) from None
    return context


def _no_pass_phrase() -> NoReturn:
    """Asked for one, OpenSSL would ask at the terminal and wait."""
    raise _fault(
        "The key in TLS_KEY_FILE needs a pass phrase.",
        "Take it off with `openssl pkey -in key.pem -out plain.pem`, and keep that file from other users.",
    )


def _fault(message: str, remedy: str) -> Fault:
    return Fault(message, remedy, exit_code=ExitCode.USAGE)
