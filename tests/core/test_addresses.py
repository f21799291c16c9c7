"""Addresses for participants: what can be connected to is brought into one form, everything else is refused with what to write."""

from __future__ import annotations

import pytest

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
    ("given", "words"),
    [
        ("https://fl.example.org:9443", "without a scheme. Write host:port: fl.example.org:9443"),
        ("https://fl.example.org/", "Write host:port: fl.example.org:9443"),
        ("grpc://[::1]:9443", "Write host:port: [::1]:9443"),
        ("fl.example.org:9443/hub", "without a path. Write host:port: fl.example.org:9443"),
        ("fl.example.org", "its port is missing"),
        ("fl.example.org:", "its port is missing"),
        ("fl.example.org:0", "its port is 0; expected one from 1 to 65535"),
        ("fl.example.org:65536", "its port is 65536"),
        ("fl.example.org:https", "its port is https"),
        ("fl.example.org:-1", "its port is -1"),
        ("[::1]", "its port is missing"),
        ("::1", "Write, for instance: [::1]:9443"),
        ("::1:9461", "an IPv6 address stands in brackets"),
        ("[fe80::1%eth0]:9443", "without a zone"),
        ("[10.0.0.1]:9443", "no IPv6 address"),
        ("0.0.0.0:9443", "by which participants reach this machine"),
        ("[::]:9443", "--host 0.0.0.0"),
        ("300.1.1.1:9443", "300.1.1.1 is no IPv4 address"),
        ("1.2.3:9443", "1.2.3 is no IPv4 address"),
        ("ana@fl.example.org:9443", "without a user"),
        ("fl example.org:9443", "without blanks"),
        (":9443", "it has no host"),
        ("-fl.example.org:9443", "is no name of a machine"),
        ("fl..example.org:9443", "is no name of a machine"),
        ("a" * 64 + ".org:9443", "is no name of a machine"),
        ("", "its port is missing"),
    ],
)
def test_what_nobody_can_connect_to_is_refused(given: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        public_address(given)
    assert str(caught.value).startswith(f"--address {given!r}:")
    assert words in str(caught.value)
