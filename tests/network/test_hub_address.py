"""A coordinator's address goes into a certificate that fits it; a proxy is named; a hub that was
moved is found or repaired.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from builders import free_port

pytest.importorskip("flwr")


from tequio.app.network.hub.folder import (
    init_coordinator_folder,
    invite,
    locate_federation,
    open_coordinator_folder,
)
from tequio.core.errors import ConfigError, NetworkError
from tequio.ledger.folder import COORDINATOR_FILE
from tequio.runtimes.flower.enrolment_client import reach
from tequio.runtimes.flower.proxies import keep_loopback_direct, proxy_variable
from tequio.trust.certificates import read_certificate
from tequio.trust.keys import new_authority

VARIABLES = (
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("[::1]:9461", "::1"),
        ("10.0.0.7:9461", "10.0.0.7"),
        ("clínica.example:9443", "xn--clnica-4va.example"),
    ],
)
def test_the_certificate_is_for_the_address(
    tmp_path: Path, make_federation: Callable[..., Path], address: str, host: str
) -> None:
    _, invitations = init_coordinator_folder(tmp_path / "hub", make_federation(), address)
    hosts = read_certificate(tmp_path / "hub" / "tls" / "server.pem").hosts
    assert hosts[0] == host or host in hosts
    assert not any(name.startswith("[") for name in hosts)
    reported = json.loads(invitations[0].read_text())["address"]
    assert reported.isascii()
    assert (":" in host) == bool(reported.startswith("[") and ipaddress.ip_address(host))


def test_a_proxy_that_was_asked_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    authority, _ = new_authority("small", 1)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(NetworkError) as caught:
        reach("192.0.2.7:9443", authority.decode())
    assert "The proxy in HTTPS_PROXY was asked for it." in caught.value.fix
    assert "set NO_PROXY=192.0.2.7" in caught.value.fix


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "ftp://127.0.0.1:9"])
def test_a_proxy_of_another_kind_is_named(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    authority, _ = new_authority("small", 1)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(NetworkError) as caught:
        reach("192.0.2.7:9443", authority.decode())
    assert "The proxy in HTTPS_PROXY was asked for it." in caught.value.fix


def test_without_a_proxy_none_is_named() -> None:
    authority, _ = new_authority("small", 1)
    with pytest.raises(NetworkError) as caught:
        reach(f"127.0.0.1:{free_port()}", authority.decode())
    assert "roxy" not in str(caught.value)


def test_this_machine_is_never_asked_for_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_loopback_direct()
    assert proxy_variable("127.0.0.1:9443") == ""
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "intra.example")
    assert proxy_variable("127.0.0.1:9443") == "https_proxy"
    keep_loopback_direct()
    for address in ("127.0.0.1:9443", "localhost:9443", "[::1]:9443", "hub.intra.example:9443"):
        assert proxy_variable(address) == ""
    assert proxy_variable("fl.example.org:9443") == "https_proxy"


def test_a_hub_moved_with_its_federation_is_found(
    tmp_path: Path, make_federation: Callable[..., Path]
) -> None:
    federation = make_federation()
    home = federation.parent
    init_coordinator_folder(home / "hub", federation, "127.0.0.1:9443")
    retained = json.loads((home / "hub" / COORDINATOR_FILE).read_text())
    assert not Path(retained["federation"]).is_absolute()
    moved = tmp_path / "elsewhere" / "all"
    moved.parent.mkdir()
    shutil.move(home, moved)
    assert Path(open_coordinator_folder(moved / "hub").federation) == moved / federation.name
    name = json.loads((moved / "hub" / COORDINATOR_FILE).read_text())["tokens"]
    invite(moved / "hub", next(iter(name)))
    assert not Path(
        json.loads((moved / "hub" / COORDINATOR_FILE).read_text())["federation"]
    ).is_absolute()


def test_a_folder_of_an_earlier_version_with_a_whole_path_is_read(
    tmp_path: Path, make_federation: Callable[..., Path]
) -> None:
    federation = make_federation()
    init_coordinator_folder(tmp_path / "hub", federation, "127.0.0.1:9443")
    path = tmp_path / "hub" / COORDINATOR_FILE
    old = json.loads(path.read_text()) | {"federation": str(federation.absolute())}
    path.write_text(json.dumps(old))
    assert Path(open_coordinator_folder(tmp_path / "hub").federation) == federation.absolute()
    (tmp_path / "beside").mkdir()
    shutil.move(tmp_path / "hub", tmp_path / "beside" / "hub")
    shutil.move(federation, tmp_path / "beside" / federation.name)
    found = open_coordinator_folder(tmp_path / "beside" / "hub").federation
    assert Path(found) == tmp_path / "beside" / federation.name


def test_a_hub_moved_alone_is_repaired_by_a_command(
    tmp_path: Path, make_federation: Callable[..., Path]
) -> None:
    federation = make_federation()
    init_coordinator_folder(tmp_path / "hub", federation, "127.0.0.1:9443")
    (tmp_path / "far" / "away").mkdir(parents=True)
    hub, other = tmp_path / "far" / "away" / "hub", tmp_path / "other.toml"
    shutil.move(tmp_path / "hub", hub)
    shutil.move(federation, tmp_path / "renamed.toml")
    with pytest.raises(ConfigError) as caught:
        open_coordinator_folder(hub)
    assert f"tequio coordinator locate {hub} " in caught.value.fix
    other.write_text((tmp_path / "renamed.toml").read_text() + "\n# more\n")
    with pytest.raises(ConfigError, match="different text"):
        locate_federation(hub, other)
    locate_federation(hub, tmp_path / "renamed.toml")
    assert Path(open_coordinator_folder(hub).federation) == tmp_path / "renamed.toml"


def test_line_ends_are_no_part_of_what_was_agreed(
    tmp_path: Path, make_federation: Callable[..., Path]
) -> None:
    """Hubs of earlier versions have the digest of the text with \\n, whatever the file has."""
    toml = make_federation()
    init_coordinator_folder(tmp_path / "hub", toml, "127.0.0.1:9443")
    text = toml.read_bytes()
    assert b"\r" not in text
    for ends in (b"\r\n", b"\r", b"\n"):
        toml.write_bytes(text.replace(b"\n", ends))
        assert open_coordinator_folder(tmp_path / "hub").federation == str(toml)
    toml.write_bytes(text.replace(b"\n", b"\n\n"))
    with pytest.raises(NetworkError, match="has changed"):
        open_coordinator_folder(tmp_path / "hub")
