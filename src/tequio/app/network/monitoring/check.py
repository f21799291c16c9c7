"""`tequio coordinator check`: is a coordinator set up as it should be, and what does a stranger reach of it.

On this machine: secrets, certificates, what was agreed to, which ports listen. From outside: each path, plain HTTP, TLS, the certificate
that is shown. Nothing is changed; what a stranger would be refused is refused here too, and told in the coordinator's log.
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

import psutil

from tequio.app.network.hub.certificates import SOON, NamedCertificate, days_left, list_certificates, unusable
from tequio.app.network.hub.folder import AUTHORITY_KEY, KEY, SECRET, CoordinatorFolder, open_coordinator_folder
from tequio.app.network.monitoring.health import read_health
from tequio.core.addresses import public_address, split_address
from tequio.core.errors import ConfigError, TequioError
from tequio.core.texts.words import ENGLISH, refusal
from tequio.ledger.folder import COORDINATOR_FILE, open_to_others
from tequio.runtimes.flower import exposure_probe
from tequio.trust.certificates import Certificate, belongs, parse_certificate, read_certificate

NAME = {62, 64}  # OpenSSL's words for a certificate of another name or address

Status = Literal["ok", "warning", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what to do where it is not well."""

    check: str
    status: Status
    what: str
    fix: str = ""


def check_coordinator(folder: Path, address: str | None) -> list[dict[str, Any]]:
    """Every finding, as plain JSON. address: host:port to ask; None: the one that participants were given.

    Raises ConfigError if the folder is no coordinator's, or the address none.
    """
    if not (folder / COORDINATOR_FILE).exists():
        raise refusal(ConfigError, "not-a-coordinator", folder=folder, file=COORDINATOR_FILE)
    try:
        hub_files = open_coordinator_folder(folder)
    except TequioError as error:
        return [asdict(Finding("agreement", "FAIL", f"{error.what} {error.why}", error.fix))]
    host, port = split_address(public_address(address or hub_files.address))
    findings = [Finding("agreement", "ok", "federation.toml has the digest that participants agreed to.")]
    findings += _secrets(folder, hub_files)
    findings += _certificates(folder, hub_files, host)
    findings += _ports(folder)
    findings += _outside(folder, hub_files, host, port)
    return [asdict(found) for found in findings]


def _secrets(folder: Path, hub_files: CoordinatorFolder) -> Iterator[Finding]:
    """Who may read keys, secret and invitations, and who may put others in their place."""
    own = [KEY, SECRET, AUTHORITY_KEY, *(f"invitations/{name}.json" for name in hub_files.tokens)]
    files = [folder / name for name in own if (folder / name).exists()]
    if (key := folder / hub_files.key) not in files:
        files.append(key)
    loose = [path for path in files if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    for path in loose:
        what = f"{path} can be read by others ({stat.S_IMODE(path.stat().st_mode):o})."
        yield Finding("secrets", "FAIL", what, f"chmod 600 {path}; take it as known, and make a new one.")
    if not loose:
        yield Finding("secrets", "ok", f"{len(files)} keys, secrets and invitations are readable by their owner alone.")
    for _, error in unusable(folder, hub_files):
        yield Finding("secrets", "FAIL", error.what, error.fix)
    for path in [p for p in (folder, folder / "superlink") if p.exists() and open_to_others(p)]:
        what = f"{path} can be read by others ({stat.S_IMODE(path.stat().st_mode):o}): messages and models are in it."
        yield Finding("secrets", "FAIL", what, f"chmod 700 {path}")
    open_ = [p for p in (folder / "tls", folder / "invitations") if p.exists() and p.stat().st_mode & 0o022]
    for path in open_:
        yield Finding("secrets", "FAIL", f"Others may write in {path}.", f"chmod go-w {path}")


def _certificates(folder: Path, hub_files: CoordinatorFolder, host: str) -> Iterator[Finding]:
    """Those on disk: until when, for which name, with which key."""
    for certificate_ in list_certificates(folder, hub_files):
        try:
            found = read_certificate(certificate_.path)
        except TequioError as error:
            yield Finding("certificate", "FAIL", error.what, error.fix)
            continue
        yield _lasting(certificate_, found)
        if certificate_.words == "the certificate":
            yield _fitting(found, host, folder / hub_files.key, ENGLISH.reason(certificate_.fix))


def _lasting(certificate_: NamedCertificate, found: Certificate) -> Finding:
    days, until = days_left(found), f"{found.ends:%Y-%m-%d}"
    if days <= 0:
        return Finding(
            "certificate",
            "FAIL",
            f"{certificate_.words} ended on {until}: nobody can connect.",
            ENGLISH.reason(certificate_.fix),
        )
    if found.begins > datetime.now(UTC):
        return Finding(
            "certificate", "FAIL", f"{certificate_.words} is not valid yet.", "Is this machine's clock right?"
        )
    what, late = f"{certificate_.words}: {days:.0f} days left (until {until}).", days < SOON
    return Finding("certificate", "warning" if late else "ok", what, ENGLISH.reason(certificate_.fix) if late else "")


def _fitting(found: Certificate, host: str, key: Path, fix: str) -> Finding:
    if not belongs(key, found):
        return Finding("certificate", "FAIL", f"{key} is not the key of the certificate.", "Give the right pair.")
    if not found.names(host):
        what = f"the certificate is for {', '.join(found.hosts)}, not for {host}."
        return Finding("certificate", "FAIL", what, f"{fix} Or give participants another address.")
    return Finding("certificate", "ok", f"it is for {host}, and its key is there.")


def _ports(folder: Path) -> Iterator[Finding]:
    """What listens on this machine: SuperLink on loopback alone, the metrics page as it was told."""
    server = _listening(_number(folder / "superlink/superlink.pid"))
    if server is None:
        yield Finding("ports", "warning", "SuperLink does not run here: its port was not looked at.", "Start it first.")
    else:
        wide = [where for where in server if not _loopback(where[0])]
        for ip, port in wide:
            fix = "Stop the coordinator: nothing but its door may be reachable."
            yield Finding("ports", "FAIL", f"SuperLink listens on {ip}:{port}, not on loopback alone.", fix)
        if not wide:
            yield Finding("ports", "ok", f"SuperLink listens on loopback alone ({len(server)} port).")
    health = read_health(folder)
    metrics = (health or {}).get("metrics")
    if health and health["alive"] and metrics and not _loopback(str(metrics).rpartition(":")[0]):
        fix = "Give --metrics a port alone, or let only your monitoring reach it."
        yield Finding(
            "ports", "warning", f"/metrics is open to the network at {metrics}, with participants' names.", fix
        )


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _listening(process: int | None) -> list[tuple[str, int]] | None:
    """Where a process and its children listen; None where there is none, or it is not ours to look at."""
    if process is None:
        return None
    try:
        first = psutil.Process(process)
        every = [first, *first.children(recursive=True)]
        found = [c.laddr for one in every for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    except psutil.Error:
        return None
    return sorted({(where.ip, where.port) for where in found}) or None


def _loopback(ip: str) -> bool:
    try:
        return ip_address(ip.strip("[]")).is_loopback
    except ValueError:
        return ip == "localhost"


def _outside(folder: Path, hub_files: CoordinatorFolder, host: str, port: int) -> Iterator[Finding]:
    """What a stranger reaches."""
    where = f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"
    try:
        shown = parse_certificate(exposure_probe.handshake(host, port, None))
    except ssl.SSLError as error:
        yield Finding(
            "reach", "FAIL", f"{where} speaks no TLS ({error.reason}).", "Is a proxy in between? Pass TLS through."
        )
        return
    except (OSError, TequioError) as error:
        fix = "Is the coordinator started, and does the firewall let this port through?"
        yield Finding("reach", "FAIL", f"{where} does not answer ({type(error).__name__}).", fix)
        return
    authority = (folder / hub_files.authority).read_bytes()
    yield _shown(folder / hub_files.certificate, shown, host, port, authority.decode())
    old = exposure_probe.old_tls(host, port)
    if old is None:
        yield Finding("tls", "warning", "Whether TLS below 1.2 is refused was not tried: this machine cannot speak it.")
    elif old:
        yield Finding(
            "tls", "FAIL", "TLS below 1.2 is accepted.", "A proxy in between must pass TLS through untouched."
        )
    else:
        yield Finding("tls", "ok", "TLS below 1.2 is refused.")
    plain = exposure_probe.plain_http(host, port)
    if plain is not None and plain < 400:
        yield Finding("plain", "FAIL", f"Plain HTTP is answered ({plain}).", "Let nothing answer without TLS there.")
    else:
        yield Finding("plain", "ok", "Plain HTTP is not answered.")
    yield _refused("paths", "of Flower's and of ours, asked for without a key", exposure_probe.open_paths(where))
    yield _refused("join", "wrong requests to join", exposure_probe.joining(where))
    status = exposure_probe.unknown_key(where, authority)
    if status is None:
        yield Finding("key", "warning", "An unknown key could not be tried.", "See the lines above.")
    elif status < 400:
        yield Finding("key", "FAIL", "An unknown key is let in.", "Stop the coordinator, and report it.")
    else:
        yield Finding("key", "ok", f"An unknown key is refused ({status}).")
    said = exposure_probe.health(where)
    if said is None or said.get("ok") is not True:
        yield Finding("health", "FAIL", "/tequio/health does not say that all is well.", "See the coordinator's log.")
    else:
        yield Finding("health", "ok", "/tequio/health says that all is well.")


def _shown(file: Path, shown: Certificate, host: str, port: int, authority: str) -> Finding:
    """Whether a participant would trust what is shown."""
    try:
        exposure_probe.handshake(host, port, authority)
    except ssl.SSLCertVerificationError as error:
        name = error.verify_code in NAME
        fix = "Participants must use a name that is in it." if name else "Is it renewed, and is this the right machine?"
        return Finding("shown", "FAIL", f"Participants refuse the certificate: {error.verify_message}.", fix)
    except OSError as error:
        return Finding("shown", "FAIL", f"No connection ({type(error).__name__}).", "Try again.")
    if shown.digest != read_certificate(file).digest:
        what = "The certificate that is shown is not the one on disk."
        return Finding("shown", "warning", what, "Start the coordinator again, if it was renewed.")
    return Finding("shown", "ok", "The certificate that is shown is the one on disk, and participants trust it.")


def _refused(check: str, words: str, tried: Iterator[tuple[str, int, bool]]) -> Finding:
    """One line for many tries."""
    rows = list(tried)
    wrong = [(name, status) for name, status, refused in rows if not refused]
    reached = [f"{name} ({status})" for name, status in wrong if 0 < status < 500]
    silent = [f"{name} ({status})" for name, status in wrong if not 0 < status < 500]
    if reached:
        what = f"{len(reached)} of {len(rows)} {words} are not refused: {', '.join(reached[:5])}."
        return Finding(check, "FAIL", what, "Is this the coordinator's door? Nothing else may be reachable there.")
    if silent:
        what = f"{len(silent)} of {len(rows)} {words} got no clear answer: {', '.join(silent[:5])}."
        return Finding(check, "warning", what, "Look at the coordinator's log, and try again.")
    return Finding(check, "ok", f"All {len(rows)} {words} are refused.")
