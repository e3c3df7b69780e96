"""Whether another machine answers, before a library waits for it for minutes."""

import socket
from urllib.parse import urlsplit

from keep.utils.credentials import without_credentials
from keep.utils.errors import UserError

WAIT = 10.0  # seconds for an answer
PORTS = {"http": 80, "https": 443}


def check_reachable(address: str, what: str) -> None:
    """Raise UserError if nothing accepts connections at an address.

    Args:
        address: ``HOST:PORT`` or ``SCHEME://HOST[:PORT]…``; one without a host or a port is not checked.
        what: begins the message.
    """
    shown = without_credentials(address)
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        host, port = place.hostname, place.port or PORTS.get(place.scheme)
        if host and port:
            socket.create_connection((host, port), WAIT).close()
    except ValueError as error:
        raise UserError(f"{what}: {shown} is not an address: {error}") from None
    except OSError as error:
        reason = error.strerror or f"no answer in {WAIT:g} s"
        raise UserError(f"{what} cannot be reached at {shown}: {reason}") from None
