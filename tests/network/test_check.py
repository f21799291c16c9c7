"""`coordinator check` finds what is wrong: real servers that accept too much, certificates that
ended, files that others may read.
"""

from __future__ import annotations

import shutil
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")


from builders import free_port
from tequio.app.network.coordinator.serve import Times, coordinate
from tequio.app.network.hub.certificates import check_keys, renew
from tequio.app.network.hub.folder import init_coordinator_folder, open_coordinator_folder
from tequio.app.network.monitoring.check import check_coordinator
from tequio.app.network.monitoring.health import Health
from tequio.core.errors import ConfigError
from tequio.core.events import ignore_events
from tequio.runtimes.flower import exposure_probe
from tequio.trust.certificates import belongs, read_certificate
from tequio.trust.keys import new_authority, new_server

Rows = list[dict[str, Any]]


class Everything(BaseHTTPRequestHandler):
    """Answers every path: what must never stand at a coordinator's address."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to say."""


@contextmanager
def server(context: ssl.SSLContext | None) -> Iterator[int]:
    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Refused handshakes are what is tested."""

    there = Quiet(("127.0.0.1", 0), Everything)
    if context is not None:
        there.socket = context.wrap_socket(
            there.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(
        target=there.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        yield int(there.server_address[1])
    finally:
        there.shutdown()
        there.server_close()
        thread.join(10)


def context_of(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def own_authority(folder: Path, hosts: list[str], days: int) -> tuple[Path, Path, Path]:
    folder.mkdir()
    authority, authority_key = new_authority("own", 10)
    certificate, key = new_server(authority, authority_key, hosts, days)
    paths = (folder / "certificate", folder / "key", folder / "authority")
    for path, data in zip(paths, (certificate, key, authority), strict=True):
        path.write_bytes(data)
        path.chmod(0o600)
    return paths


def failures(rows: Rows) -> dict[str, str]:
    return {row["check"]: row["what"] for row in rows if row["status"] == "FAIL"}


def test_what_is_on_disk_is_well_at_first_and_nothing_answers(
    make_federation: Any, tmp_path: Path
) -> None:
    hub = tmp_path / "hub"
    init_coordinator_folder(hub, make_federation(), f"127.0.0.1:{free_port()}")
    rows = check_coordinator(hub, None)
    assert set(failures(rows)) == {"reach"}
    assert {row["check"] for row in rows if row["status"] == "ok"} == {
        "agreement",
        "secrets",
        "certificate",
    }
    assert any("397 days" in row["what"] or "396 days" in row["what"] for row in rows)


@pytest.mark.parametrize(
    "name", ["tls/server.key", "tls/authority.key", "secret", "invitations/site0.json"]
)
def test_secrets_that_others_may_read(make_federation: Any, tmp_path: Path, name: str) -> None:
    hub = tmp_path / "hub"
    init_coordinator_folder(hub, make_federation(), f"127.0.0.1:{free_port()}")
    (hub / name).chmod(0o640)
    assert name in failures(check_coordinator(hub, None))["secrets"]


def test_a_hub_or_its_server_that_others_may_enter(make_federation: Any, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hub.mkdir(0o755)
    init_coordinator_folder(hub, make_federation(), f"127.0.0.1:{free_port()}")
    (hub / "superlink").mkdir(0o700)
    assert set(failures(check_coordinator(hub, None))) == {
        "reach"
    }  # init closed the hub that was there
    for path in (hub / "superlink", hub):
        path.chmod(0o755)
        assert failures(check_coordinator(hub, None))["secrets"].startswith(
            f"{path} can be read by others (755)"
        )
        path.chmod(0o700)


def test_folders_in_which_others_may_write_and_what_is_missing(
    make_federation: Any, tmp_path: Path
) -> None:
    hub = tmp_path / "hub"
    init_coordinator_folder(hub, make_federation(), f"127.0.0.1:{free_port()}")
    (hub / "tls").chmod(0o777)
    assert "Others may write" in failures(check_coordinator(hub, None))["secrets"]
    (hub / "tls").chmod(0o755)
    (hub / "tls/server.key").unlink()
    found = failures(check_coordinator(hub, None))
    assert "missing" in found["secrets"]
    assert "not the key" in found["certificate"]


@pytest.mark.parametrize("name", ["secret", "tls/server.key", "tls/authority.key"])
@pytest.mark.parametrize("retained", [0, 20])
def test_an_empty_or_cut_secret_or_key(
    make_federation: Any, tmp_path: Path, name: str, retained: int
) -> None:
    hub = tmp_path / "hub"
    init_coordinator_folder(hub, make_federation(), f"127.0.0.1:{free_port()}")
    (hub / name).write_bytes((hub / name).read_bytes()[:retained])
    wrong = (
        f"{hub / name} is missing, {'empty or cut' if name == 'secret' else 'or is not the key of'}"
    )
    assert failures(check_coordinator(hub, None))["secrets"].startswith(wrong)
    if name == "tls/authority.key":  # it is for renewing alone
        check_keys(hub, open_coordinator_folder(hub))
        with pytest.raises(ConfigError, match="is not the key of"):
            renew(hub)
    else:
        with pytest.raises(ConfigError, match=f"^{wrong}"):
            coordinate(
                hub,
                "127.0.0.1",
                None,
                Times(1, 1),
                Health("coordinator", ignore_events),
                lambda *_: None,
            )


def test_another_federation_toml_is_the_only_thing_reported(
    make_federation: Any, tmp_path: Path
) -> None:
    toml, hub = make_federation(), tmp_path / "hub"
    init_coordinator_folder(hub, toml, f"127.0.0.1:{free_port()}")
    toml.write_text(toml.read_text() + "\n# other\n")
    (row,) = check_coordinator(hub, None)
    assert (row["check"], row["status"]) == ("agreement", "FAIL")


def test_a_folder_that_is_put_in_place_anew_behind_a_link_is_found(
    make_federation: Any, tmp_path: Path
) -> None:
    """As Kubernetes does with what it mounts: another folder behind the same link."""
    toml, hub, link = make_federation(), tmp_path / "hub", tmp_path / "link"
    link.symlink_to(toml.parent)
    init_coordinator_folder(hub, link / toml.name, f"127.0.0.1:{free_port()}", None)
    link.unlink()
    link.symlink_to(shutil.move(toml.parent, tmp_path / "moved"))
    assert "agreement" not in failures(check_coordinator(hub, None))


def test_certificates_that_end(make_federation: Any, tmp_path: Path) -> None:
    ended, hub = own_authority(tmp_path / "own", ["127.0.0.1"], 0), tmp_path / "hub"
    init_coordinator_folder(hub, make_federation(), f"127.0.0.1:{free_port()}", ended)
    assert "certificate-ended" in {row["reason"]["code"] for row in check_coordinator(hub, None)}
    soon, other = own_authority(tmp_path / "soon", ["127.0.0.1"], 5), tmp_path / "other"
    init_coordinator_folder(
        other, make_federation(folder="second"), f"127.0.0.1:{free_port()}", soon
    )
    warned = [
        row
        for row in check_coordinator(other, None)
        if row["status"] == "warning" and row["check"] == "certificate"
    ]
    assert len(warned) == 2  # the certificate and its authority, 10 days
    assert all("days left" in row["what"] for row in warned)


def test_an_ended_certificate_of_a_server_that_answers_everything(
    make_federation: Any, tmp_path: Path
) -> None:
    """Everything from outside fails: the certificate, every path, joining, an unknown key; each is
    told apart.
    """
    paths, hub = own_authority(tmp_path / "own", ["127.0.0.1"], 0), tmp_path / "hub"
    with server(context_of(paths[0], paths[1])) as there:
        init_coordinator_folder(hub, make_federation(), f"127.0.0.1:{there}", paths)
        found = failures(check_coordinator(hub, None))
    assert "expired" in found["shown"]
    assert "are not refused" in found["paths"]
    assert "are not refused" in found["join"]
    assert found["health"].startswith("/tequio/health does not say")
    assert set(found) == {"certificate", "shown", "paths", "join", "health"}


def test_a_certificate_for_another_name(make_federation: Any, tmp_path: Path) -> None:
    paths, hub = own_authority(tmp_path / "own", ["fl.example.org"], 5), tmp_path / "hub"
    with server(context_of(paths[0], paths[1])) as there:
        init_coordinator_folder(hub, make_federation(), f"127.0.0.1:{there}", paths)
        found = failures(check_coordinator(hub, None))
    assert "not for 127.0.0.1" in found["certificate"]
    assert "Participants refuse" in found["shown"]


def test_plain_http_is_no_tls(make_federation: Any, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    with server(None) as there:
        assert exposure_probe.plain_http("127.0.0.1", there) == 200
        init_coordinator_folder(hub, make_federation(), f"127.0.0.1:{there}")
        assert "speaks no TLS" in failures(check_coordinator(hub, None))["reach"]


def test_old_tls_is_noticed(tmp_path: Path) -> None:
    """A server that speaks 1.1 is told from one that does not."""
    certificate, key, _ = own_authority(tmp_path / "own", ["127.0.0.1"], 1)
    old = context_of(certificate, key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with server(old) as there:
        assert exposure_probe.old_tls("127.0.0.1", there) is True
    with server(context_of(certificate, key)) as there:
        assert exposure_probe.old_tls("127.0.0.1", there) is False


def test_names_of_a_certificate(tmp_path: Path) -> None:
    certificate, key, authority = own_authority(tmp_path / "own", ["*.example.org", "10.0.0.7"], 1)
    found = read_certificate(certificate)
    assert [
        found.names(h)
        for h in ("fl.example.org", "FL.example.org", "10.0.0.7", "a.fl.example.org", "org", "")
    ] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert belongs(key, found)
    assert not belongs(authority, found)


def test_what_is_no_folder_or_no_address(make_federation: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        check_coordinator(tmp_path, None)
    init_coordinator_folder(tmp_path / "hub", make_federation(), "127.0.0.1:9443")
    with pytest.raises(ConfigError):
        check_coordinator(tmp_path / "hub", "no-port")
