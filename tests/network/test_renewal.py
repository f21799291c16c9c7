"""Certificates that end: said in time, renewed by the authority that participants know, and nobody
needs a new invitation.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from network_processes import ALONE, background, federation, kinds, ready, tequio, until

from builders import free_port, refused
from tequio.app.network.coordinator.serve import Times, coordinate
from tequio.app.network.hub.certificates import ending, reminder, renew
from tequio.app.network.hub.folder import (
    AUTHORITY,
    AUTHORITY_KEY,
    CERTIFICATE,
    KEY,
    init_coordinator_folder,
    open_coordinator_folder,
)
from tequio.app.network.monitoring.check import check_coordinator
from tequio.app.network.monitoring.health import Health
from tequio.app.network.monitoring.status import read_status
from tequio.core.errors import ConfigError, NetworkError
from tequio.core.events import Level, Value, ignore_events
from tequio.core.texts.words import ENGLISH
from tequio.runtimes.flower import exposure_probe
from tequio.runtimes.flower.gateway import Gateway, claimed, open_gateway
from tequio.runtimes.flower.superlink import Server
from tequio.trust.certificates import belongs, parse_certificate, read_certificate
from tequio.trust.keys import new_authority, new_server, replace_secret


def aged(hub: Path, days: int) -> None:
    """Its certificate has so many days left, as if time had passed."""
    files = [(hub / name).read_bytes() for name in (AUTHORITY, AUTHORITY_KEY)]
    certificate, key = new_server(
        files[0], files[1], list(read_certificate(hub / CERTIFICATE).hosts), days
    )
    (hub / CERTIFICATE).write_bytes(certificate)
    replace_secret(hub / KEY, key)


def made(make_federation: Any, root: Path, days: int) -> Path:
    init_coordinator_folder(root / "hub", make_federation(), f"127.0.0.1:{free_port()}")
    aged(root / "hub", days)
    return root / "hub"


def test_one_that_ends_soon_is_said_everywhere_until_it_is_renewed(
    make_federation: Any, tmp_path: Path
) -> None:
    hub, said = made(make_federation, tmp_path, 5), list[str]()

    def tell(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        assert (event, level) == ("certificate-ends", "warning")
        said.append(words)

    look = reminder(hub, open_coordinator_folder(hub), tell)
    look()
    look()
    (words,) = said  # once a day
    assert f"{hub / CERTIFICATE} ends on {datetime.now(UTC) + timedelta(days=5):%Y-%m-%d}" in words
    assert words.endswith(f"tequio coordinator renew {hub}")
    (reason,) = read_status(hub)["certificates"]
    assert (reason["code"], ENGLISH.reason(reason)) == ("certificate-ending", words)
    assert f"Warning: {words}" in " ".join(tequio("status", hub).split())
    (warned,) = [
        row
        for row in check_coordinator(hub, None)
        if row["status"] == "warning" and row["check"] == "certificate"
    ]
    assert warned["fix"] == f"tequio coordinator renew {hub}"
    before = read_certificate(hub / CERTIFICATE)
    result = json.loads(tequio("coordinator", "renew", hub, "--json"))
    after = read_certificate(hub / CERTIFICATE)
    assert result["shown"]
    assert result["until"] == after.ends.isoformat(timespec="seconds")
    assert after.hosts == before.hosts
    assert after.ends > before.ends + timedelta(days=300)
    assert after.public != before.public, "a new key"
    assert belongs(hub / KEY, after)
    assert (hub / KEY).stat().st_mode & 0o077 == 0
    assert read_status(hub)["certificates"] == []


def test_who_trusts_the_invitation_trusts_the_renewed_one(
    make_federation: Any, tmp_path: Path
) -> None:
    """A real handshake against the authority of an invitation that was written before."""
    hub = made(make_federation, tmp_path, 5)
    address = json.loads((hub / "invitations" / "site0.json").read_text())["address"]
    authority = json.loads((hub / "invitations" / "site0.json").read_text())["authority"]
    renew(hub)
    server = Server(free_port(), hub, hub / CERTIFICATE, hub / KEY, hub / AUTHORITY, hub / "secret")
    host, _, number = address.rpartition(":")
    with (
        claimed(host, int(number)) as own,
        open_gateway(
            Gateway(hub / CERTIFICATE, hub / KEY, server),
            own,
            lambda *_: 1,
            lambda _: None,
            ignore_events,
        ),
    ):
        shown = parse_certificate(exposure_probe.handshake(host, int(number), authority))
    assert shown.digest == read_certificate(hub / CERTIFICATE).digest


def test_what_cannot_be_renewed_is_said_with_the_way_out(
    make_federation: Any, tmp_path: Path
) -> None:
    """An authority that ends as soon (folders of an earlier version), and one whose key is kept
    elsewhere; the files stay as they were.
    """
    hub = made(make_federation, tmp_path, 5)
    whole = {
        name: (hub / name).read_bytes() for name in (CERTIFICATE, KEY, AUTHORITY, AUTHORITY_KEY)
    }
    (hub / AUTHORITY_KEY).unlink()
    with pytest.raises(ConfigError, match=r"authority's key is needed.*Put it back"):
        renew(hub)
    authority, key = new_authority("short", 5)
    (hub / AUTHORITY).write_bytes(authority)
    (hub / AUTHORITY_KEY).write_bytes(key)
    aged(hub, 400)
    before = (hub / CERTIFICATE).read_bytes()
    assert read_certificate(hub / CERTIFICATE).ends == read_certificate(hub / AUTHORITY).ends, (
        "not longer than its authority"
    )
    with pytest.raises(ConfigError, match=r"cannot be extended.*coordinator init"):
        renew(hub)
    assert (hub / CERTIFICATE).read_bytes() == before
    assert len(ending(hub, open_coordinator_folder(hub))) == 2
    for name, data in whole.items():
        (hub / name).write_bytes(data)
    assert renew(hub)["shown"]


def test_with_a_real_authoritys_files_only_superlinks_is_renewed(
    make_federation: Any, tmp_path: Path
) -> None:
    authority, authority_key = new_authority("real", 10)
    paths = (tmp_path / "certificate", tmp_path / "key", tmp_path / "authority")
    for path, data in zip(
        paths, (*new_server(authority, authority_key, ["127.0.0.1"], 5), authority), strict=True
    ):
        path.write_bytes(data)
    hub = tmp_path / "hub"
    init_coordinator_folder(hub, make_federation(), f"127.0.0.1:{free_port()}", paths)
    found = ending(hub, open_coordinator_folder(hub))
    assert [row["facts"]["next"]["code"] for row in found] == ["renew-elsewhere", "renew-elsewhere"]
    before = paths[0].read_bytes()
    assert not renew(hub)["shown"]
    assert paths[0].read_bytes() == before


def test_one_that_has_ended_is_reported_before_anything_is_loaded(
    make_federation: Any, tmp_path: Path
) -> None:
    hub = made(make_federation, tmp_path, 0)
    with refused(NetworkError, "certificate-ended", path=str(hub / CERTIFICATE)):
        coordinate(
            hub,
            "127.0.0.1",
            None,
            Times(1.0, 1.0),
            Health("coordinator", ignore_events),
            lambda *_: None,
        )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_participants_connect_again_to_the_renewed_one(
    make_federation: Any, tmp_path: Path
) -> None:
    """Real processes: stopped after a round, renewed, started again; who was connected is so again,
    with its old invitation.
    """
    toml, hub = (
        make_federation(participants=2, train={"rounds": 30, "patience": 30}),
        tmp_path / "hub",
    )
    record, address, log = (
        hub / "run" / "ledger.sqlite",
        f"127.0.0.1:{free_port()}",
        tmp_path / "coordinator.log",
    )
    with ExitStack() as staying:
        with federation(tmp_path, toml, address) as folders:
            people = [
                staying.enter_context(
                    background(tmp_path / f"{name}.log", "participate", folder, *ALONE)
                )
                for name, folder in folders.items()
            ]
            until(lambda: record.exists() and "round" in kinds(record))
        made_before = kinds(record).count("round")
        assert "end" not in kinds(record)
        first = read_certificate(hub / CERTIFICATE).digest
        assert "need no new invitation" in tequio("coordinator", "renew", hub)
        log.write_text("")
        with background(log, "coordinator", "start", hub, *ALONE) as again:
            until(lambda: ready(tmp_path))
            shown = parse_certificate(
                exposure_probe.handshake("127.0.0.1", int(address.rpartition(":")[2]), None)
            ).digest
            assert again.wait(600) == 0
        assert [person.wait(60) for person in people] == [0, 0]
    assert shown == read_certificate(hub / CERTIFICATE).digest != first
    assert kinds(record).count("round") > made_before
    assert kinds(record).count("personal") == 2
