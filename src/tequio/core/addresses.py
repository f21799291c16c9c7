"""Addresses that participants are given: host:port with a name, an IPv4 address, or an IPv6 address in brackets."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

from tequio.core.errors import ConfigError

EXAMPLE = "for instance fl.example.org:9443"
LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
PORTS = range(1, 65536)


def split_address(address: str) -> tuple[str, int]:
    """Return (host, port) of an address as `public_address` makes it; an IPv6 host without its brackets."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def public_address(given: str, option: str = "--address") -> str:
    """Return host:port as it goes into invitations: in lower case, a name with other letters as DNS has it (punycode).

    Raises ConfigError with what to write for anything that participants could not connect to.
    """
    text = given.strip()
    what = f"{option} {given!r}:"
    if found := re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        rest = text[found.end() :].split("/")[0]
        raise ConfigError(what, "it is given without a scheme.", f"Write host:port: {_with_port(rest)}")
    if "/" in text or "?" in text or "#" in text:
        raise ConfigError(
            what, "it is given without a path.", f"Write host:port: {_with_port(re.split('[/?#]', text)[0])}"
        )
    if "@" in text or any(letter.isspace() for letter in text):
        raise ConfigError(what, "expected host:port, without a user and without blanks,", f"{EXAMPLE}.")
    host, port = _parts(text, what)
    if not (port.isascii() and port.isdigit() and int(port) in PORTS):
        raise ConfigError(what, f"its port is {port or 'missing'}; expected one from 1 to 65535,", f"{EXAMPLE}.")
    return f"{_host(host, what)}:{int(port)}"


def _with_port(text: str) -> str:
    return text if re.search(r":\d+$", text) else f"{text or 'fl.example.org'}:9443"


def _parts(text: str, what: str) -> tuple[str, str]:
    """(host, port); an IPv6 host in its brackets."""
    if text.startswith("["):
        host, bracket, port = text.rpartition("]")
        return f"{host}{bracket}", port.removeprefix(":")
    if text.count(":") > 1:
        alone = _ip(text)
        example = f"[{text}]:9443" if alone is not None else "[2001:db8::1]:9443"
        raise ConfigError(
            what, "an IPv6 address stands in brackets before its port.", f"Write, for instance: {example}"
        )
    host, _, port = text.partition(":")
    return host, port


def _ip(text: str) -> IPv6Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return found if isinstance(found, IPv6Address) else None


def _host(host: str, what: str) -> str:
    if host.startswith("["):
        inside = _ip(host[1:-1])
        if inside is None or inside.scope_id:
            fix = "Write, for instance: [2001:db8::1]:9443, without a zone such as %eth0."
            raise ConfigError(what, "in the brackets stands no IPv6 address.", fix)
        _reachable(inside.is_unspecified or inside.is_multicast, what)
        return f"[{inside.compressed}]"
    if re.fullmatch(r"[0-9.]+", host):
        try:
            number = ip_address(host)
        except ValueError:
            raise ConfigError(what, f"{host} is no IPv4 address.", "Expected four numbers from 0 to 255.") from None
        _reachable(number.is_unspecified or number.is_multicast, what)
        return str(number)
    return _name(host, what)


def _reachable(nowhere: bool, what: str) -> None:
    if nowhere:
        why = "nobody can connect to that address; it means every address of this machine."
        fix = (
            "Give the name or the address by which participants reach this machine; "
            "to listen everywhere, add --host 0.0.0.0 to `tequio coordinator start`."
        )
        raise ConfigError(what, why, fix)


def _name(host: str, what: str) -> str:
    name = host.rstrip(".").lower()
    try:
        ascii_name = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        ascii_name = ""
    if not name or len(ascii_name) > 253 or not all(LABEL.fullmatch(part) for part in ascii_name.split(".")):
        why = "it has no host." if not name else f"{host!r} is no name of a machine."
        raise ConfigError(what, why, f"Expected host:port, {EXAMPLE}.")
    return ascii_name
