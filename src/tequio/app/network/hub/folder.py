"""The coordinator's folder: certificates, secret, invitations, and enrolled participants.

`tequio coordinator init` makes it.

coordinator.json   where federation.toml is and its digest; where participants find the coordinator
tls/               the authority's certificate and key, the server's
secret             between SuperLink and us, on this machine only
invitations/       one file a participant, to be given to it by a way that both trust
enrolled.json      participant -> its key and number, and when it left; written when it joins
withdrawn.json     keys that count no more -> whose they were
unconfirmed.json   participant -> digest of its recorded personal model, until it knows of that
superlink/ run/    the server's database and log; the run, with its ledger
"""

import fcntl
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tequio.app.assembly.algorithm import resolve_algorithm
from tequio.app.assembly.masked import check_masked
from tequio.app.network.chosen_files import coordinator_digests
from tequio.app.run_files import json_table
from tequio.config import Federation, load_federation
from tequio.config.load import LARGEST
from tequio.core.addresses import public_address, split_address
from tequio.core.bounds import one_line
from tequio.core.canonical import digest
from tequio.core.errors import ConfigError, NetworkError
from tequio.core.files import read_regular
from tequio.core.texts.words import refusal, refuse_first
from tequio.ledger.folder import COORDINATOR_FILE, RunFolder, own_folder
from tequio.trust.invitation import Invitation, invitation_bytes, new_token, token_hash
from tequio.trust.keys import is_public_key, new_authority, new_server, replace_secret, write_secret
from tequio.trust.leave_request import is_leave_request

ENROLLED, WITHDRAWN = "enrolled.json", "withdrawn.json"
UNCONFIRMED = "unconfirmed.json"
DAYS, AUTHORITY_DAYS = 397, 3650  # that a certificate is valid, and the authority that can renew it
INSIDE = ("127.0.0.1", "localhost")  # where SuperLink itself listens
CERTIFICATE, KEY = "tls/server.pem", "tls/server.key"
AUTHORITY, AUTHORITY_KEY = "tls/authority.pem", "tls/authority.key"
SECRET, SECRET_BYTES = "secret", 32

NEEDED = ("federation", "digest", "address", "tokens")
TABLES = {"tokens": str, "invited": int, "files": str}


@dataclass(frozen=True)
class CoordinatorFolder:
    """coordinator.json: federation.toml's path and digest, the public address, each token's hash.

    The path is absolute here, and as seen from the folder in the file.

    invited: how often each was invited again. files: digests of the files that participants open
    (chosen_files.py).
    """

    federation: str
    digest: str
    address: str
    tokens: Mapping[str, str]
    certificate: str = CERTIFICATE
    key: str = KEY
    authority: str = AUTHORITY
    invited: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def read_coordinator_folder(folder: Path) -> CoordinatorFolder:
    """Read the folder's settings.

    Raises ConfigError if it is no coordinator's folder, or damaged.
    """
    path = folder / COORDINATOR_FILE
    if not path.is_file():
        raise refusal(ConfigError, "not-a-coordinator", folder=str(folder), file=COORDINATOR_FILE)
    raw = json_table(path)
    wrong = [
        *sorted(raw.keys() - CoordinatorFolder.__dataclass_fields__),
        *(key for key in NEEDED if key not in raw),
        *(key for key, value in raw.items() if key in TABLES and not _is_table(value, TABLES[key])),
        *(key for key, value in raw.items() if key not in TABLES and not isinstance(value, str)),
    ]
    if wrong:
        raise refusal(ConfigError, "coordinator-damaged", path=str(path), key=wrong[0])
    found = CoordinatorFolder(**raw)
    return replace(found, federation=str(_find(folder, found)))


def _find(folder: Path, hub_files: CoordinatorFolder) -> Path:
    """Where federation.toml is: as coordinator.json says, else beside or in the folder, which was
    moved, where its text is the same.
    """
    said = Path(os.path.normpath(folder / hub_files.federation))
    for path in (said, folder.absolute().parent / said.name, folder.absolute() / said.name):
        if path == said and path.exists():
            return path
        with suppress(OSError, ConfigError):
            if digest(_text(path).encode()) == hub_files.digest:
                return path
    return said


def locate_federation(folder: Path, federation: Path) -> None:
    """Keep where federation.toml is now.

    Raises ConfigError where it is not the text that participants were invited to.
    """
    with changing(folder):
        hub_files = read_coordinator_folder(folder)
        if digest(_text(federation).encode()) != hub_files.digest:
            raise refusal(ConfigError, "other-federation", path=str(federation), folder=str(folder))
        _write(folder, replace(hub_files, federation=str(federation)))


def _write(folder: Path, hub_files: CoordinatorFolder) -> None:
    """Write coordinator.json. federation.toml is kept as seen from the folder, so that both can be
    moved together; a path in it too.
    """
    paths = {"federation": os.path.relpath(os.path.abspath(hub_files.federation), folder.resolve())}
    for name in ("certificate", "key", "authority"):
        path = Path(getattr(hub_files, name))
        if path.is_absolute() and path.is_relative_to(folder.absolute()):
            paths[name] = str(path.relative_to(folder.absolute()))
    RunFolder(folder).write_atomic(
        COORDINATOR_FILE, json.dumps(asdict(hub_files) | paths, indent=1).encode()
    )


def _is_table(value: Any, of: type) -> bool:
    return isinstance(value, dict) and all(isinstance(each, of) for each in value.values())


def open_coordinator_folder(folder: Path) -> CoordinatorFolder:
    """Raises ConfigError if it is none, NetworkError if federation.toml is not what participants
    were invited to.
    """
    hub_files = read_coordinator_folder(folder)
    if not Path(hub_files.federation).exists():
        raise refusal(
            ConfigError,
            "federation-moved",
            path=hub_files.federation,
            folder=str(folder),
            file=Path(hub_files.federation).name,
        )
    if digest(_text(Path(hub_files.federation)).encode()) != hub_files.digest:
        raise refusal(NetworkError, "federation-changed", path=hub_files.federation)
    return hub_files


def init_coordinator_folder(
    folder: Path, federation: Path, address: str, own: tuple[Path, Path, Path] | None = None
) -> tuple[Federation, list[Path]]:
    """Make the folder, certificates and an invitation for each on the roster; returns the
    invitations' paths.

    address: host:port at which participants reach this machine. own: (certificate, key, authority)
        of a real certificate authority for
    it; inside, between us and SuperLink, our own are used in any case.
    Raises ConfigError for a folder that is one already, or for what cannot run over a network.
    """
    if folder.is_file():
        raise refusal(
            ConfigError,
            "folder-is-a-file",
            folder=str(folder),
            path=str(federation),
            address=address,
        )
    config, text = load_federation(federation), _text(federation)
    check_masked(config, resolve_algorithm(config))
    chosen = coordinator_digests(config)
    address = public_address(address)
    host, _ = split_address(address)
    if (folder / COORDINATOR_FILE).exists():
        raise refusal(ConfigError, "path-exists", path=folder / COORDINATOR_FILE)
    tokens = {entry.name: new_token() for entry in config.participants}
    place = RunFolder(own_folder(folder))
    authority, authority_key = new_authority(config.name, AUTHORITY_DAYS)
    certificate, key = new_server(
        authority, authority_key, list(dict.fromkeys((host, *INSIDE))), DAYS
    )
    place.write_atomic(AUTHORITY, authority)
    place.write_atomic(CERTIFICATE, certificate)
    write_secret(folder / AUTHORITY_KEY, authority_key)
    write_secret(folder / KEY, key)
    files: dict[str, Any] = {}
    if own is not None:
        files = dict(
            zip(
                ("certificate", "key", "authority"),
                (str(path.absolute()) for path in own),
                strict=True,
            )
        )
        authority = own[2].read_bytes()
    write_secret(folder / SECRET, secrets.token_bytes(SECRET_BYTES))
    written = {name: folder / "invitations" / f"{name}.json" for name in tokens}
    for name, path in written.items():
        invitation = Invitation(
            name,
            address,
            authority.decode(),
            text,
            digest(text.encode()),
            tokens[name],
            files=chosen,
        )
        write_secret(path, invitation_bytes(invitation))
    hashes = {name: token_hash(token) for name, token in tokens.items()}
    _write(
        folder,
        CoordinatorFolder(
            str(federation), digest(text.encode()), address, hashes, **files, files=chosen
        ),
    )  # last: the folder counts from here on
    return config, list(written.values())


def invite(folder: Path, name: str) -> Path:
    """Write a new invitation for a participant on the roster, and return its path.

    The earlier token, and the key that joined with it, are no longer valid. A running coordinator
    reads the folder again, so it need not be stopped. Raises ConfigError for a name that is not on
    the roster.
    """
    with changing(folder):
        hub_files = open_coordinator_folder(folder)
        if name not in hub_files.tokens:
            raise refusal(ConfigError, "not-on-roster", name=name, names=list(hub_files.tokens))
        token = new_token()
        invited = {**hub_files.invited, name: hub_files.invited.get(name, 0) + 1}
        chosen = hub_files.files or coordinator_digests(load_federation(Path(hub_files.federation)))
        _write(
            folder,
            replace(
                hub_files,
                tokens={**hub_files.tokens, name: token_hash(token)},
                invited=invited,
                files=chosen,
            ),
        )
        rows = enrolled(folder)
        row = rows.pop(name, None)
        if row is not None:
            _withdraw(folder, name, row["public_key"])
            RunFolder(folder).write_atomic(ENROLLED, json.dumps(rows, indent=1).encode())
        path, authority = (
            folder / "invitations" / f"{name}.json",
            (folder / hub_files.authority).read_text(),
        )
        invitation = Invitation(
            name,
            hub_files.address,
            authority,
            _text(Path(hub_files.federation)),
            hub_files.digest,
            token,
            files=chosen,
        )
        replace_secret(path, invitation_bytes(invitation))
    return path


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Let one thread of one process at a time change the membership."""
    with (folder / "enrolment.lock").open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def enrolled(folder: Path) -> dict[str, dict[str, str]]:
    """Return, by participant, its row of enrolment.

    A row is {"public_key": PEM, "node": number, "invitation": how often it was invited again,
    "left": when}.
    """
    path = folder / ENROLLED
    rows = json_table(path) if path.exists() else {}
    for name, row in rows.items():
        known = _is_table(row, str) and row.keys() >= {"public_key", "node"}
        if not known or not (row["node"].isdecimal() and row.get("invitation", "0").isdecimal()):
            raise refusal(ConfigError, "coordinator-damaged", path=path, key=name)
    return rows


def count_invitations(folder: Path) -> dict[str, int]:
    """Return, by participant, how often it had been invited again when it joined."""
    return {name: int(row.get("invitation", 0)) for name, row in enrolled(folder).items()}


def left(folder: Path) -> dict[str, int]:
    """Return the participants that left, with how often each had been invited again when it
    joined.
    """
    return {
        name: n for name, n in count_invitations(folder).items() if "left" in enrolled(folder)[name]
    }


def node_numbers(folder: Path) -> dict[str, int]:
    """Return the node numbers of the participants that joined and did not leave."""
    return {name: int(row["node"]) for name, row in enrolled(folder).items() if "left" not in row}


def withdrawn(folder: Path) -> dict[str, str]:
    """Return the keys (PEM) that are no longer valid, with their participants."""
    path = folder / WITHDRAWN
    keys = json_table(path) if path.exists() else {}
    if not _is_table(keys, str):
        raise refusal(ConfigError, "damaged", path=path)
    return keys


def member_keys(folder: Path) -> dict[str, str]:
    """Participant -> its public key (PEM); of one invited again that did not join again yet, the
    key before.
    """
    return {name: key for key, name in withdrawn(folder).items()} | {
        name: row["public_key"] for name, row in enrolled(folder).items()
    }


def _withdraw(folder: Path, name: str, public_key: str) -> None:
    RunFolder(folder).write_atomic(
        WITHDRAWN, json.dumps(withdrawn(folder) | {public_key: name}, indent=1).encode()
    )


def write_leave(folder: Path, wanted: dict[str, str]) -> None:
    """Note that a participant left: its key is no longer valid.

    Raises NetworkError unless the key's owner asks for it, now.
    """
    rows = enrolled(folder)
    name = wanted["name"]
    row = rows.get(name)
    if (
        row is None
        or row["node"] != wanted["node"]
        or not is_leave_request(row["public_key"].encode(), wanted)
    ):
        raise refusal(NetworkError, "leave-not-signed", name=one_line(name[:64]))
    _withdraw(folder, name, row["public_key"])
    rows[name] = {"left": datetime.now(UTC).isoformat(timespec="seconds"), **row}
    RunFolder(folder).write_atomic(ENROLLED, json.dumps(rows, indent=1).encode())


def check_enrolment(folder: Path, name: str, token: str, public_key: str) -> None:
    """Raise NetworkError unless this token may enrol this key.

    There is one key per token, and the same key may come again.
    """
    expected = open_coordinator_folder(folder).tokens.get(name, "")
    known = enrolled(folder).get(name)
    refuse_first(
        NetworkError,
        {
            "token-wrong": not hmac.compare_digest(expected, token_hash(token)),
            "key-unusable": not is_public_key(public_key.encode()),
            "key-withdrawn": public_key in withdrawn(folder),
            "joined-by-another-key": known is not None and known["public_key"] != public_key,
        },
        name=one_line(name[:64]),
    )


def write_enrolment(folder: Path, name: str, public_key: str, node: int) -> None:
    """Note a participant that joined."""
    times = open_coordinator_folder(folder).invited.get(name, 0)
    rows = enrolled(folder) | {
        name: {"public_key": public_key, "node": str(node), "invitation": str(times)}
    }
    RunFolder(folder).write_atomic(ENROLLED, json.dumps(rows, indent=1).encode())


def _text(path: Path) -> str:
    """Return the text of federation.toml, whatever its line ends: its digest is over \\n alone."""
    try:
        return (
            read_regular(path, LARGEST)
            .decode("utf-8-sig")
            .replace("\r\n", "\n")
            .replace("\r", "\n")
        )
    except (OSError, UnicodeDecodeError) as error:
        raise refusal(ConfigError, "unreadable", path=path, error=type(error).__name__) from None
