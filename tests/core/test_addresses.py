"""Addresses for participants: what can be connected to is brought into one form, everything else is
refused with what to write.
"""

from __future__ import annotations

from typing import Any

import pytest

from builders import refused
from tequio.core.addresses import public_address, split_address
from tequio.core.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "retained", "host", "port"),
    [
        ("fl.example.org:9443", "fl.example.org:9443", "fl.example.org", 9443),
        (" FL.Example.ORG.:09443 ", "fl.example.org:9443", "fl.example.org", 9443),
        ("10.0.0.7:1", "10.0.0.7:1", "10.0.0.7", 1),
        ("localhost:65535", "localhost:65535", "localhost", 65535),
        ("[::1]:9461", "[::1]:9461", "::1", 9461),
        ("[2001:DB8:0:0::1]:9461", "[2001:db8::1]:9461", "2001:db8::1", 9461),
        ("clínica.example:9443", "xn--clnica-4va.example:9443", "xn--clnica-4va.example", 9443),
        ("fl_hub:9443", "fl_hub:9443", "fl_hub", 9443),
    ],
)
def test_an_address_in_one_form(given: str, retained: str, host: str, port: int) -> None:
    assert public_address(given) == retained
    assert split_address(retained) == (host, port)
    assert public_address(retained) == retained


@pytest.mark.parametrize(
    ("given", "code", "facts"),
    [
        ("https://fl.example.org:9443", "address-with-more", {"example": "fl.example.org:9443"}),
        ("https://fl.example.org/", "address-with-more", {"example": "fl.example.org:9443"}),
        ("grpc://[::1]:9443", "address-with-more", {"example": "[::1]:9443"}),
        ("fl.example.org:9443/hub", "address-with-more", {"example": "fl.example.org:9443"}),
        (
            "fl.example.org:9443/to?at=http://x",
            "address-with-more",
            {"example": "fl.example.org:9443"},
        ),
        ("fl.example.org", "address-port", {"port": None}),
        ("fl.example.org:", "address-port", {"port": None}),
        ("fl.example.org:0", "address-port", {"port": "0"}),
        ("fl.example.org:65536", "address-port", {"port": "65536"}),
        ("fl.example.org:https", "address-port", {"port": "https"}),
        ("fl.example.org:-1", "address-port", {"port": "-1"}),
        ("[::1]", "address-port", {"port": None}),
        ("::1", "address-without-brackets", {"example": "[::1]:9443"}),
        ("::1:9461", "address-without-brackets", {}),
        ("[fe80::1%eth0]:9443", "address-not-ipv6", {}),
        ("[10.0.0.1]:9443", "address-not-ipv6", {}),
        ("0.0.0.0:9443", "address-of-nobody", {}),
        ("[::]:9443", "address-of-nobody", {}),
        ("300.1.1.1:9443", "address-not-ipv4", {"host": "300.1.1.1"}),
        ("1.2.3:9443", "address-not-ipv4", {"host": "1.2.3"}),
        ("ana@fl.example.org:9443", "address-malformed", {}),
        ("fl example.org:9443", "address-malformed", {}),
        (":9443", "address-not-a-name", {"host": None}),
        ("-fl.example.org:9443", "address-not-a-name", {"host": "-fl.example.org"}),
        ("fl..example.org:9443", "address-not-a-name", {"host": "fl..example.org"}),
        ("a" * 64 + ".org:9443", "address-not-a-name", {"host": "a" * 64 + ".org"}),
        ("", "address-port", {"port": None}),
    ],
)
def test_what_nobody_can_connect_to_is_refused(
    given: str, code: str, facts: dict[str, Any]
) -> None:
    with refused(ConfigError, code, key="--address", address=given, **facts):
        public_address(given)
