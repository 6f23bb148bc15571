"""Who may talk to the server: the names it answers to, the sites that may call it, the token, and what it offers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from captcha_reader.errors import UserError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
EVERY_ADDRESS = frozenset({"0.0.0.0", "::", ""})
COOKIE = "captcha_reader"
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Access:
    """Who may talk to the server.

    Attributes:
        host: address that it listens on.
        root_path: the path that a reverse proxy serves it under, such as /captcha, or the whole address, such as
            https://example.org/captcha, whose name is then one that the server answers to.
        allow_origin: other sites whose pages may call the server, such as https://example.org.
        read_only: no fine-tuning, no corrections kept, no download of models.
        token: what a visitor must know; None lets everybody in.

    Raises:
        UserError: an address that is none, or a token that cannot be sent.
    """

    host: str = "127.0.0.1"
    root_path: str = ""
    allow_origin: tuple[str, ...] = ()
    read_only: bool = False
    token: str | None = None

    def __post_init__(self) -> None:
        if self.root_path and not re.fullmatch(r"(https?://[^/\s?#]+)?(/[\w.~-]+)*/?", self.root_path):
            raise UserError(f"--root_path is {self.root_path!r}: give a path such as /captcha, or https://NAME/captcha")
        for site in self.allow_origin:
            if not re.fullmatch(r"https?://[^/\s?#*@]+/?", site):
                raise UserError(f"--allow_origin is {site!r}: name each site as https://NAME or http://NAME:PORT")
        if self.token is not None and not re.fullmatch(r"[!-~]{8,200}", self.token):
            raise UserError("--token must have 8 to 200 letters, digits or signs, without blanks")

    @cached_property
    def prefix(self) -> str:
        """The path that the server stands under, without a slash at its end; empty at the root."""
        return re.sub(r"^https?://[^/]+", "", self.root_path).rstrip("/")

    @cached_property
    def origins(self) -> frozenset[str]:
        """The sites, scheme and authority, whose pages may change something here."""
        return frozenset(_origin(url) for url in (*self.allow_origin, *self._public) if url)

    @cached_property
    def names(self) -> frozenset[str]:
        """The host names that the server answers to."""
        named = {urlsplit(url).hostname or "" for url in (*self.allow_origin, *self._public)}
        return LOOPBACK_NAMES | ({self.host.lower(), *named} - EVERY_ADDRESS)

    @property
    def _public(self) -> tuple[str, ...]:
        return (self.root_path,) if self.root_path.startswith("http") else ()

    def knows_host(self, host: str) -> bool:
        """Whether a Host header names this server. A page of another site whose name was bound anew to this address
        (DNS rebinding) sends that name, and is refused; an address in digits cannot be bound anew."""
        match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\s]+)(:\d{1,5})?", host)
        if not match:
            return False
        name = match[1].strip("[]").lower().rstrip(".")
        return name in self.names or (self.host in EVERY_ADDRESS and _is_address(name))

    def knows_origin(self, headers: Mapping[str, str]) -> bool:
        """Whether a request that changes something comes from a page of ours, from a site that may, or from no page.

        Args:
            headers: of the request, by lower-case name.
        """
        origin, fetched = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and _origin(origin) in self.origins:
            return True
        if fetched is not None:
            return fetched in ("same-origin", "none")
        if origin is None:
            return True  # no browser
        # Scheme and port may differ behind a proxy that speaks TLS; its name does not.
        return _authority(origin) == headers.get("host", "").lower()

    def knows_token(self, headers: Mapping[str, str]) -> bool:
        """Whether a request carries the token: as a bearer, or as the cookie that `cookie` makes."""
        if self.token is None:
            return True
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.is_token(value.strip()):
            return True
        cookies = dict(part.strip().partition("=")[::2] for part in headers.get("cookie", "").split(";"))
        return hmac.compare_digest(cookies.get(COOKIE, "").encode(), self.cookie.encode())

    def is_token(self, value: str) -> bool:
        """Compare in a time that tells nothing."""
        return self.token is not None and hmac.compare_digest(value.encode(), self.token.encode())

    @property
    def cookie(self) -> str:
        """What a browser keeps in place of the token."""
        return hashlib.sha256(f"captcha-reader:{self.token}".encode()).hexdigest()

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        return self.host in LOOPBACK_NAMES or self.host.startswith("127.")

    @property
    def warning(self) -> str | None:
        """What the terminal should say at the start, or None."""
        if self.is_local or self.token is not None or self.read_only:
            return None
        return (
            f"warning: whoever reaches {self.host} may read, fine-tune and download: give --token, or --read_only, or "
            "stay on 127.0.0.1"
        )

    @property
    def said(self) -> str:
        """What the page's footer says of privacy: one sentence that is true."""
        if self.is_local and not self.root_path:
            return "Everything stays on this machine."
        who = "those who know the token" if self.token else "everybody who reaches it"
        return f"What you upload goes to the machine that serves this page, which answers {who}, and no further."


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _origin(url: str) -> str:
    return f"{url.lower().partition('://')[0]}://{_authority(url)}"


def _authority(url: str) -> str:
    """`name` or `name:port` of an address, without the port that its scheme implies."""
    try:
        parts = urlsplit(url.lower())
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    name = f"[{name}]" if ":" in name else name
    return name if port in (None, PORTS.get(parts.scheme)) else f"{name}:{port}"
