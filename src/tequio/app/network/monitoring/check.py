"""`tequio coordinator check`: is a coordinator set up as it should be, and what does a stranger
reach of it.

On this machine: secrets, certificates, what was agreed to, which ports listen. From outside: each
path, plain HTTP, TLS, the certificate that is shown. Nothing is changed; what a stranger would be
refused is refused here too, and told in the coordinator's log.
"""

import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

import psutil

from tequio.app.network.hub.certificates import (
    SOON,
    NamedCertificate,
    days_left,
    list_certificates,
    unusable,
)
from tequio.app.network.hub.folder import (
    AUTHORITY_KEY,
    KEY,
    SECRET,
    CoordinatorFolder,
    open_coordinator_folder,
)
from tequio.app.network.monitoring.health import read_health
from tequio.core.addresses import public_address, split_address
from tequio.core.errors import ConfigError, TequioError
from tequio.core.reason import Reason
from tequio.core.texts.words import refusal
from tequio.ledger.folder import COORDINATOR_FILE, open_to_others
from tequio.runtimes.flower import exposure_probe
from tequio.trust.certificates import Certificate, belongs, parse_certificate, read_certificate

NAME = {62, 64}  # OpenSSL's words for a certificate of another name or address

Status = Literal["ok", "warning", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what was found, with what to do where it is not
    well.
    """

    check: str
    status: Status
    found: TequioError

    def as_row(self) -> dict[str, Any]:
        """Return it as plain JSON: what was found and its fix in words, and the reason in its
        recorded form.
        """
        what = f"{self.found.what} {self.found.why}".strip()
        reason = self.found.as_reason().as_record()
        return {
            "check": self.check,
            "status": self.status,
            "what": what,
            "fix": self.found.fix,
            "reason": reason,
        }


def check_coordinator(folder: Path, address: str | None) -> list[dict[str, Any]]:
    """Every finding, as plain JSON. address: host:port to ask;

    None: the one that participants were given.

    Raises ConfigError if the folder is no coordinator's, or the address none.
    """
    if not (folder / COORDINATOR_FILE).exists():
        raise refusal(ConfigError, "not-a-coordinator", folder=folder, file=COORDINATOR_FILE)
    try:
        hub_files = open_coordinator_folder(folder)
    except TequioError as error:
        return [Finding("agreement", "FAIL", error).as_row()]
    host, port = split_address(public_address(address or hub_files.address))
    findings = [Finding("agreement", "ok", refusal(ConfigError, "found-agreed"))]
    findings += _secrets(folder, hub_files)
    findings += _certificates(folder, hub_files, host)
    findings += _ports(folder)
    findings += _outside(folder, hub_files, host, port)
    return [found.as_row() for found in findings]


def _secrets(folder: Path, hub_files: CoordinatorFolder) -> Iterator[Finding]:
    """Who may read keys, secret and invitations, and who may put others in their place."""
    own = [KEY, SECRET, AUTHORITY_KEY, *(f"invitations/{name}.json" for name in hub_files.tokens)]
    files = [folder / name for name in own if (folder / name).exists()]
    if (key := folder / hub_files.key) not in files:
        files.append(key)
    loose = [path for path in files if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    for path in loose:
        mode = f"{stat.S_IMODE(path.stat().st_mode):o}"
        yield Finding(
            "secrets", "FAIL", refusal(ConfigError, "found-loose-secret", path=path, mode=mode)
        )
    if not loose:
        yield Finding("secrets", "ok", refusal(ConfigError, "found-secrets", count=len(files)))
    for _, error in unusable(folder, hub_files):
        yield Finding("secrets", "FAIL", error)
    for path in [p for p in (folder, folder / "superlink") if p.exists() and open_to_others(p)]:
        mode = f"{stat.S_IMODE(path.stat().st_mode):o}"
        yield Finding(
            "secrets", "FAIL", refusal(ConfigError, "found-open-folder", path=path, mode=mode)
        )
    open_ = [
        p
        for p in (folder / "tls", folder / "invitations")
        if p.exists() and p.stat().st_mode & 0o022
    ]
    for path in open_:
        yield Finding("secrets", "FAIL", refusal(ConfigError, "found-writable-folder", path=path))


def _certificates(folder: Path, hub_files: CoordinatorFolder, host: str) -> Iterator[Finding]:
    """Those on disk: until when, for which name, with which key."""
    for certificate_ in list_certificates(folder, hub_files):
        try:
            found = read_certificate(certificate_.path)
        except TequioError as error:
            yield Finding("certificate", "FAIL", error)
            continue
        yield _lasting(certificate_, found)
        if certificate_.words == "the certificate":
            yield _fitting(found, host, folder / hub_files.key, certificate_.fix)


def _lasting(certificate_: NamedCertificate, found: Certificate) -> Finding:
    days, path = days_left(found), certificate_.path
    facts = {
        "path": path,
        "date": f"{found.ends:%Y-%m-%d}",
        "days": round(days),
        "next": certificate_.fix.as_record(),
    }
    if days <= 0:
        return Finding("certificate", "FAIL", refusal(ConfigError, "certificate-ended", **facts))
    if found.begins > datetime.now(UTC):
        return Finding(
            "certificate", "FAIL", refusal(ConfigError, "found-certificate-early", path=path)
        )
    late = days < SOON
    error = refusal(ConfigError, "found-days-short" if late else "found-days-left", **facts)
    return Finding("certificate", "warning" if late else "ok", error)


def _fitting(found: Certificate, host: str, key: Path, fix: Reason) -> Finding:
    if not belongs(key, found):
        return Finding("certificate", "FAIL", refusal(ConfigError, "found-other-key", path=key))
    if not found.names(host):
        facts = {"names": list(found.hosts), "host": host, "next": fix.as_record()}
        return Finding("certificate", "FAIL", refusal(ConfigError, "found-other-host", **facts))
    return Finding(
        "certificate", "ok", refusal(ConfigError, "found-certificate-of-host", host=host)
    )


def _ports(folder: Path) -> Iterator[Finding]:
    """What listens on this machine:

    SuperLink on loopback alone, the metrics page as it was told.
    """
    server = _listening(_number(folder / "superlink/superlink.pid"))
    if server is None:
        yield Finding("ports", "warning", refusal(ConfigError, "found-no-superlink"))
    else:
        wide = [where for where in server if not _loopback(where[0])]
        for ip, port in wide:
            yield Finding(
                "ports",
                "FAIL",
                refusal(ConfigError, "found-superlink-open", address=f"{ip}:{port}"),
            )
        if not wide:
            yield Finding("ports", "ok", refusal(ConfigError, "found-superlink", count=len(server)))
    health = read_health(folder)
    metrics = (health or {}).get("metrics")
    if health and health["alive"] and metrics and not _loopback(str(metrics).rpartition(":")[0]):
        yield Finding(
            "ports", "warning", refusal(ConfigError, "found-metrics-open", address=str(metrics))
        )


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _listening(process: int | None) -> list[tuple[str, int]] | None:
    """Where a process and its children listen;

    None where there is none, or it is not ours to look at.
    """
    if process is None:
        return None
    try:
        first = psutil.Process(process)
        every = [first, *first.children(recursive=True)]
        found = [
            c.laddr
            for one in every
            for c in one.net_connections("inet")
            if c.status == psutil.CONN_LISTEN
        ]
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
            "reach",
            "FAIL",
            refusal(ConfigError, "found-no-tls", address=where, error=str(error.reason)),
        )
        return
    except (OSError, TequioError) as error:
        why = type(error).__name__
        yield Finding(
            "reach", "FAIL", refusal(ConfigError, "found-no-answer", address=where, error=why)
        )
        return
    authority = (folder / hub_files.authority).read_bytes()
    yield _shown(folder / hub_files.certificate, shown, host, port, authority.decode())
    old = exposure_probe.old_tls(host, port)
    if old is None:
        yield Finding("tls", "warning", refusal(ConfigError, "found-old-tls-untried"))
    elif old:
        yield Finding("tls", "FAIL", refusal(ConfigError, "found-old-tls"))
    else:
        yield Finding("tls", "ok", refusal(ConfigError, "found-new-tls"))
    plain = exposure_probe.plain_http(host, port)
    if plain is not None and plain < 400:
        yield Finding("plain", "FAIL", refusal(ConfigError, "found-plain-http", status=plain))
    else:
        yield Finding("plain", "ok", refusal(ConfigError, "found-no-plain-http"))
    yield _refused("paths", exposure_probe.open_paths(where))
    yield _refused("join", exposure_probe.joining(where))
    status = exposure_probe.unknown_key(where, authority)
    if status is None:
        yield Finding("key", "warning", refusal(ConfigError, "found-key-untried"))
    elif status < 400:
        yield Finding("key", "FAIL", refusal(ConfigError, "found-key-let-in"))
    else:
        yield Finding("key", "ok", refusal(ConfigError, "found-key-refused", status=status))
    said = exposure_probe.health(where)
    if said is None or said.get("ok") is not True:
        yield Finding("health", "FAIL", refusal(ConfigError, "found-unwell"))
    else:
        yield Finding("health", "ok", refusal(ConfigError, "found-well"))


def _shown(file: Path, shown: Certificate, host: str, port: int, authority: str) -> Finding:
    """Whether a participant would trust what is shown."""
    try:
        exposure_probe.handshake(host, port, authority)
    except ssl.SSLCertVerificationError as error:
        code = "found-shown-other-name" if error.verify_code in NAME else "found-shown-distrusted"
        return Finding("shown", "FAIL", refusal(ConfigError, code, message=error.verify_message))
    except OSError as error:
        facts = {"address": f"{host}:{port}", "error": type(error).__name__}
        return Finding("shown", "FAIL", refusal(ConfigError, "found-no-answer", **facts))
    if shown.digest != read_certificate(file).digest:
        return Finding("shown", "warning", refusal(ConfigError, "found-shown-other"))
    return Finding("shown", "ok", refusal(ConfigError, "found-shown"))


def _refused(check: str, tried: Iterator[tuple[str, int, bool]]) -> Finding:
    """One line for many tries."""
    rows = list(tried)
    wrong = [(name, status) for name, status, refused in rows if not refused]
    reached = [f"{name} ({status})" for name, status in wrong if 0 < status < 500]
    silent = [f"{name} ({status})" for name, status in wrong if not 0 < status < 500]
    facts = {
        "tried": check,
        "tries": len(rows),
        "count": len(reached or silent),
        "names": (reached or silent)[:5],
    }
    if reached:
        return Finding(check, "FAIL", refusal(ConfigError, "found-reached", **facts))
    if silent:
        return Finding(check, "warning", refusal(ConfigError, "found-unclear", **facts))
    return Finding(check, "ok", refusal(ConfigError, "found-refused", **facts))
