"""Addresses that participants are given: host:port with a name, an IPv4 address, or an IPv6 address
in brackets.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address

from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal

SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
PORTS = range(1, 65536)


def split_address(address: str) -> tuple[str, int]:
    """Return (host, port) of an address as `public_address` makes it; an IPv6 host without its
    brackets.
    """
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def public_address(given: str, option: str = "--address") -> str:
    """Return host:port as it goes into invitations: in lower case, a name with other letters as DNS
    has it (punycode).

    Raises ConfigError with what to write for anything that participants could not connect to.
    """
    text = given.strip()
    said = {"key": option, "address": text}
    bare = re.split("[/?#]", SCHEME.sub("", text, count=1))[0]
    if bare != text:
        raise refusal(ConfigError, "address-with-more", **said, example=_with_port(bare))
    if "@" in text or any(letter.isspace() for letter in text):
        raise refusal(ConfigError, "address-malformed", **said)
    host, port = _parts(text, said)
    if not (port.isascii() and port.isdigit() and int(port) in PORTS):
        raise refusal(ConfigError, "address-port", **said, port=port or None)
    return f"{_host(host, said)}:{int(port)}"


def _with_port(text: str) -> str:
    return text if re.search(r":\d+$", text) else f"{text or 'fl.example.org'}:9443"


def _parts(text: str, said: Mapping[str, str]) -> tuple[str, str]:
    """(host, port); an IPv6 host in its brackets."""
    if text.startswith("["):
        host, bracket, port = text.rpartition("]")
        return f"{host}{bracket}", port.removeprefix(":")
    if text.count(":") > 1:
        example = "[2001:db8::1]:9443" if _ip(text) is None else f"[{text}]:9443"
        raise refusal(ConfigError, "address-without-brackets", **said, example=example)
    host, _, port = text.partition(":")
    return host, port


def _ip(text: str) -> IPv6Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return found if isinstance(found, IPv6Address) else None


def _host(host: str, said: Mapping[str, str]) -> str:
    if host.startswith("["):
        inside = _ip(host[1:-1])
        if inside is None or inside.scope_id:
            raise refusal(ConfigError, "address-not-ipv6", **said)
        _reachable(inside.is_unspecified or inside.is_multicast, said)
        return f"[{inside.compressed}]"
    if re.fullmatch(r"[0-9.]+", host):
        try:
            number = ip_address(host)
        except ValueError:
            raise refusal(ConfigError, "address-not-ipv4", **said, host=host) from None
        _reachable(number.is_unspecified or number.is_multicast, said)
        return str(number)
    return _name(host, said)


def _reachable(nowhere: bool, said: Mapping[str, str]) -> None:
    if nowhere:
        raise refusal(ConfigError, "address-of-nobody", **said)


def _name(host: str, said: Mapping[str, str]) -> str:
    name = host.rstrip(".").lower()
    try:
        ascii_name = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        ascii_name = ""
    if (
        not name
        or len(ascii_name) > 253
        or not all(LABEL.fullmatch(part) for part in ascii_name.split("."))
    ):
        raise refusal(ConfigError, "address-not-a-name", **said, host=host or None)
    return ascii_name
