"""Joining a federation: check an invitation with a participant's own file, show what leaves, make
the folder.

key.pem          this participant's key; never leaves
identity.json    where the coordinator is, our number there, our key, the digest of federation.toml
authority.pem    the certificate that the coordinator must show
federation.toml  what all agreed to, as it was in the invitation; each request is compared with it
files.json       which files it names that are opened here, and the digest that each must have
participant.toml where your own file is
run/             personal model, own ledger, reports; made by `tequio participate`
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tequio.app.assembly.algorithm import resolve_algorithm
from tequio.app.assembly.context import read_splits
from tequio.app.assembly.masked import check_least_mode, check_masked
from tequio.app.models.trial import try_at_home
from tequio.app.network.chosen_files import FILES, check_agreed, lines
from tequio.app.run_files import json_table
from tequio.config import (
    Federation,
    ParticipantFile,
    federation_of_text,
    load_federation,
    load_participant,
)
from tequio.core.canonical import digest
from tequio.core.errors import ConfigError, NetworkError
from tequio.core.texts.words import refusal
from tequio.ledger.folder import IDENTITY, RunFolder, own_folder
from tequio.runtimes.flower.enrolment_client import enrol, reach
from tequio.trust.certificates import read_certificate
from tequio.trust.invitation import Invitation, read_invitation, token_hash
from tequio.trust.keys import key_bytes, load_key, new_key, public_bytes, write_secret
from tequio.trust.secure_sum.agreement import LEAST_MEMBERS

KEY, AUTHORITY, FEDERATION = "key.pem", "authority.pem", "federation.toml"
SECOND_KEY = "key-2.pem"  # of a participant that joins again; the next one is key.pem again


@dataclass(frozen=True)
class Ready:
    """Hold a checked invitation; nothing is written or sent yet.

    leaves: what will leave this machine, in lines for a person.
    """

    invitation: Invitation
    config: Federation
    file: ParticipantFile
    path: Path
    leaves: tuple[str, ...]


def prepare(invitation: Path, participant: Path) -> Ready:
    """Read everything that will be needed: a token enrols one key, once, so it is not spent where
    the data cannot be used.

    Raises ConfigError, DataError, NetworkError where something does not fit; the coordinator is
    only asked whether it is there.
    """
    asked, base, config, file = _read(invitation, participant)
    chosen = lines(config, base, asked.files)
    read_splits(config, file)
    reach(asked.address, asked.authority)
    return Ready(
        asked, config, file, participant.absolute(), tuple(_leaves(asked, config, file, chosen))
    )


def try_before(invitation: Path, participant: Path, source: Path) -> dict[str, Any]:
    """Try an earlier shared model on this participant's own data, with no connection and no file
    written.

    Args:
        invitation: of the federation that may be joined.
        participant: the participant's own file.
        source: an earlier run's folder, or a shared model that was exported.

    Returns:
        As `try_at_home`.

    Raises:
        ConfigError, DataError: the files do not fit. RunError, UpdateError: the model does not.
    """
    asked, base, config, file = _read(invitation, participant)
    check_agreed(config, base, asked.files, file.base is not None, begun=False)
    if file.base is not None:
        config = config.model_copy(
            update={"base": config.base.model_copy(update={"model": str(file.base)})}
        )
    return try_at_home(config, file, source, base)


def _read(
    invitation: Path, participant: Path
) -> tuple[Invitation, str, Federation, ParticipantFile]:
    """Read the invitation, the base and its part of the federation in it, and the participant's
    file.

    Raises ConfigError where they do not fit.
    """
    asked = read_invitation(invitation)
    config = federation_of_text(asked.federation, f"federation.toml in {invitation}")
    if asked.name not in {entry.name for entry in config.participants}:
        raise refusal(ConfigError, "invitation-of-nobody", path=invitation, name=asked.name)
    if not participant.exists():
        raise refusal(ConfigError, "participant-file-missing", path=participant, name=asked.name)
    base, file = config.base_of(asked.name), load_participant(participant, asked.name)
    check_masked(config, resolve_algorithm(config))
    check_least_mode(config, asked.name, file)
    return asked, base, config.part(base), file


def join_federation(ready: Ready, out: Path) -> Path:
    """Make the key, enrol it, and write the folder.

    A folder that joined before can join again with a new invitation, and its run continues. Where
    no answer came, a second try uses the same key: it may be enrolled. Raises NetworkError if
    refused; then nothing is left behind.
    """
    asked, before = ready.invitation, _before(ready.invitation, out)
    key = SECOND_KEY if before is not None and before.get("key", KEY) == KEY else KEY
    if not (own_folder(out) / key).exists():
        write_secret(out / key, key_bytes(new_key()))
    node = enrol(
        asked.address,
        asked.authority,
        asked.name,
        asked.token,
        public_bytes(load_key(out / key)).decode(),
    )
    if isinstance(node, str):
        (out / key).unlink()
        if not any(out.iterdir()):
            out.rmdir()
        raise refusal(NetworkError, "join-refused", address=asked.address, why=node)
    folder = RunFolder(out)
    folder.write_atomic(AUTHORITY, asked.authority.encode())
    folder.write_atomic(FEDERATION, asked.federation.encode())
    folder.write_atomic(FILES, json.dumps(dict(asked.files), indent=1).encode())
    identity = {
        "name": asked.name,
        "address": asked.address,
        "node": str(node),
        "participant": str(ready.path),
        "key": key,
        "invitation": token_hash(asked.token),
        "federation": asked.digest,
    }
    folder.write_atomic(
        IDENTITY, json.dumps(identity, indent=1).encode()
    )  # last: from here on the new key counts
    (out / (KEY if key == SECOND_KEY else SECOND_KEY)).unlink(missing_ok=True)
    return out


def _before(asked: Invitation, out: Path) -> dict[str, str] | None:
    """Return the present identity of this folder.

    Raises ConfigError where this invitation cannot be used to join again.
    """
    if not (out / IDENTITY).exists():
        return None
    before = read_identity(out)
    if (
        before["name"] != asked.name
        or (out / FEDERATION).read_text(encoding="utf-8") != asked.federation
    ):
        raise refusal(ConfigError, "folder-of-another", folder=out, name=before["name"])
    if before.get("invitation", token_hash(asked.token)) == token_hash(asked.token):
        raise refusal(ConfigError, "joined-already", folder=out)
    return before


def read_identity(folder: Path) -> dict[str, str]:
    """Read identity.json. Raises ConfigError if the folder did not join, or it is damaged."""
    path = folder / IDENTITY
    if not path.is_file():
        raise refusal(ConfigError, "not-joined", folder=folder, file=IDENTITY)
    identity = {key: str(value) for key, value in json_table(path).items()}
    missing = {"name", "address", "node", "participant"} - identity.keys()
    if missing or not identity["node"].isdecimal() or int(identity["node"]) < 1:
        raise refusal(ConfigError, "identity-damaged", path=path, key=min(missing, default="node"))
    return identity


def read_agreed(folder: Path) -> Federation:
    """Return federation.toml as this folder joined it.

    Raises ConfigError where the file was changed since.
    """
    path, said = folder / FEDERATION, read_identity(folder).get("federation")
    if said is not None and path.is_file() and digest(path.read_bytes()) != said:
        raise refusal(ConfigError, "agreed-text-changed", path=path)
    return load_federation(path)


def agreed_digest(folder: Path) -> str:
    """Return the digest of federation.toml as this folder joined it.

    Raises ConfigError where the file was changed since.
    """
    read_agreed(folder)
    return digest((folder / FEDERATION).read_bytes())


def read_authority(folder: Path) -> str:
    """Read authority.pem, the certificate that the coordinator must show.

    Raises NetworkError where there is none in it.
    """
    path = folder / AUTHORITY
    try:
        read_certificate(path)
    except NetworkError:
        raise refusal(NetworkError, "no-certificate", path=path) from None
    return path.read_text(encoding="utf-8")


def _accounts(file: ParticipantFile) -> str:
    carbon = (
        "the carbon intensity of your electricity"
        if file.energy.tell
        else "no carbon ([energy] tell = false)"
    )
    money = "what the work cost you" if file.money is not None and file.money.tell else "no money"
    return f"{carbon}; {money}."


def _paths(file: ParticipantFile) -> str:
    """Return the paths of the data in words."""
    given = file.data.path or file.data.train
    return ", ".join(map(str, given)) if isinstance(given, list) else str(given)


def _opened(chosen: list[str]) -> list[str]:
    if not chosen:
        return ["federation.toml names no other file of this machine, so none is opened."]
    return [
        "federation.toml names files that are opened here, each only where it has this digest, "
        "which is the coordinator's:",
        *(f"  - {line}" for line in chosen),
    ]


def _leaves(
    asked: Invitation, config: Federation, file: ParticipantFile, chosen: list[str]
) -> list[str]:
    masked = config.privacy.mode == "masked"
    return [
        f"Federation {config.name}, at {asked.address} (its certificate is the one in your "
        "invitation).",
        f"Base model {config.base.model}, licence {config.base.licence}. federation.toml has "
        f"digest {asked.digest[:16]}….",
        "",
        "What will leave this machine:",
        *(_masked_figures(config) if masked else _open_figures(config)),
        "  - counts: texts, classes, tokens, rows dropped and why; a salted fingerprint of your "
        "data;",
        "  - what participant.toml says of your hardware, licence and consent; energy and time;",
        f"  - {_accounts(file)}",
        "What will not: texts, labels or losses of single examples, your personal model, paths, "
        "your key.",
        f"Your data: {_paths(file)}. Neither the coordinator nor other participants read them.",
        *_opened(chosen),
        *(MASKED if masked else OPEN),
    ]


OPEN = (
    "The coordinator sees each of your updates, and an update can tell something about the data it "
    "was made from.",
)
MASKED = (
    "The coordinator learns sums over the participants of a round, and a sum can tell something "
    "about the data too.",
    "The other participants' keys come from the coordinator, and are pinned here in the first "
    "round: a coordinator that lies then",
    "can read your update. `tequio members FOLDER` shows a fingerprint: compare it with the other "
    "participants by another channel.",
)


def _open_figures(config: Federation) -> list[str]:
    """Return lines on what the coordinator reads of each participant."""
    return [
        f"  - the changes that your data make to the model ({_trained(config)}), after each of "
        f"{config.train.rounds} rounds at most;",
        "  - means over your validation and test data: loss, accuracy; of your personal model too;",
    ]


def _masked_figures(config: Federation) -> list[str]:
    """Return lines on what leaves under masks, and what leaves as it is."""
    return [
        f"  - under masks, which only a sum over {LEAST_MEMBERS} participants or more takes away: "
        "the changes that your data make to the",
        f"    model ({_trained(config)}), and means over your validation data, in each of "
        f"{config.train.rounds} rounds at most;",
        "  - as they are: means over the validation and test data of your personal model and its "
        "rivals: loss, accuracy;",
    ]


def _trained(config: Federation) -> str:
    return "LoRA factors, head" if config.task.kind == "classification" else "LoRA factors"
