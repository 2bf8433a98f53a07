"""Who may do what, and the headers that keep other pages out."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

__all__ = ["HEADERS", "MAX_BODY", "TOO_LONG", "Access", "Role", "is_loopback", "problem_with"]

MAX_BODY = 256 * 1024
"""Bytes of a request; a page of the grid needs a tenth of it."""

TOO_LONG = f"Send at most {MAX_BODY} bytes."

# A name or an address, and a port: nothing that could stand for a user ("evil.org@127.0.0.1") or a path.
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?")

HEADERS: dict[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
"""Sent with every response."""


@dataclass(frozen=True)
class Role:
    """What a token allows.

    Attributes:
        owner: Whether the owner's page may be seen.
        person: The only name that it may answer under; ``None`` for any.
    """

    owner: bool = False
    person: str | None = None


@dataclass(frozen=True)
class Access:
    """Tokens, and whether one is needed.

    Attributes:
        required: Whether a token is needed; without, everybody who reaches the port is the owner.
        tokens: Role of each token.
    """

    required: bool
    tokens: Mapping[str, Role] = field(default_factory=dict, repr=False)

    def role(self, token: str | None) -> Role | None:
        """What a token allows; ``None`` for nothing. Takes equally long for every wrong token.

        Example:
            >>> access = Access(True, {"secret": Role(owner=True)})
            >>> access.role("secret"), access.role("guess"), Access(False).role(None)
            (Role(owner=True, person=None), None, Role(owner=True, person=None))
        """
        if not self.required:
            return Role(owner=True)
        given, found = (token or "").encode(), None
        for known, role in self.tokens.items():
            if hmac.compare_digest(known.encode(), given):
                found = role
        return found


def is_loopback(host: str) -> bool:
    """Whether only programs of the same machine can reach an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def problem_with(method: str, headers: Mapping[str, str], *, known_hosts_only: bool) -> tuple[int, str] | None:
    """What is wrong with a request before anything is read of it: status and words, or ``None``.

    - Without tokens, only names of this machine are answered to: a page elsewhere that points its own name
      here (DNS rebinding) is not.
    - What changes something must come from our own page, and is short.

    Args:
        method: Of HTTP.
        headers: Names in small letters.
        known_hosts_only: Whether only names of this machine are answered to.
    """
    host = headers.get("host", "")
    named = _HOST.fullmatch(host)
    if known_hosts_only and not (named and is_loopback(named["name"].lower())):
        return 400, "This address is not the one that this program listens on."
    if "transfer-encoding" in headers:  # it would count in the place of the length
        return 411, "Send the request in one piece, with its length (Content-Length) and no Transfer-Encoding."
    if method in ("GET", "HEAD", "OPTIONS"):
        return None
    origin = headers.get("origin")
    if origin is not None and _netloc(origin) != host:
        return 403, "Requests from other pages are refused."
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return 403, "Requests from other pages are refused."
    length = headers.get("content-length", "")
    if not re.fullmatch(r"[0-9]{1,18}", length):
        return 411, "Say how long the request is (Content-Length)."
    return (413, TOO_LONG) if int(length) > MAX_BODY else None


def _netloc(address: str) -> str:
    """Name and port of an address; empty when it is not one."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""
