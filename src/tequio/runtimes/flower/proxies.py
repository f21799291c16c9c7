"""Proxies of the environment (HTTPS_PROXY, ALL_PROXY): which one a connection would take, and how
to pass it by.
"""

import os
from typing import Any
from urllib.request import getproxies_environment, proxy_bypass

from tequio.core.addresses import split_address
from tequio.core.reason import Reason

HERE = ("127.0.0.1", "localhost", "::1")  # a proxy would look for these on its own machine


def keep_loopback_direct() -> None:
    """Let no connection to this machine itself go through a proxy, in this process and those that
    it starts.
    """
    if not getproxies_environment():
        return
    names = [name for name in ("NO_PROXY", "no_proxy") if name in os.environ] or ["NO_PROXY"]
    for name in names:
        listed = [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]
        if "*" not in listed:
            os.environ[name] = ",".join([*listed, *(host for host in HERE if host not in listed)])


def proxy_variable(address: str) -> str:
    """Return the environment's variable whose proxy a connection to `address` (host:port) takes;
    nothing where it takes none.
    """
    proxies = getproxies_environment()
    scheme = next((scheme for scheme in ("https", "all") if proxies.get(scheme)), "")
    try:
        host, _ = split_address(address)
    except ValueError:
        host = address
    if not scheme or proxy_bypass(host):
        return ""
    return next(
        (name for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY") if os.environ.get(name)),
        "",
    )


def proxy_advice(address: str) -> dict[str, Any] | str:
    """Return what to do where a connection to `address` failed and a proxy was asked for it, as a
    reason; else nothing.
    """
    name = proxy_variable(address)
    if not name:
        return ""
    try:
        host = split_address(address)[0]
    except ValueError:
        host = address
    return Reason("proxy-asked", {"name": name, "host": host}).as_record()
