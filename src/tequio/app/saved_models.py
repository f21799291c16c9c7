"""What a participant keeps of the federation in its own folder: the last shared model that it was
sent, and its personal models.

A shared model lies in a file of its own for each round, named by a record `received`, and only then
is the one before deleted: killed anywhere, there is a whole one. It is the model as it was sent,
which for small ranks can be a truncation of the coordinator's.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from tequio.algorithms.factors import product
from tequio.app.run_files import SHARED_FILE, read_model, save
from tequio.core.canonical import digest_update
from tequio.core.types import TrainRequest
from tequio.core.update import Dense, Update, plain
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.general import Familiarity
from tequio.participant.personal import Personal

RECEIVED, PERSONAL = "received", "personal"
# what a participant's general model needs beside the kept and the shared one
FAMILIAR = "familiar.safetensors"


def keep_personal(folder: RunFolder, made: Personal) -> dict[str, Any]:
    """Write a personal model, the one trained alone and what the general one needs; return the
    record of it, with their digests.
    """
    own = f"participants/{made.body['name']}"
    save(folder, f"{own}/personal.safetensors", made.delivered)
    save(folder, f"{own}/local.safetensors", made.local)
    body = {
        **made.body,
        "digest": digest_update(made.delivered),
        "local_digest": digest_update(made.local),
    }
    return body | _save_familiarity(folder, made, f"{own}/{FAMILIAR}")


def _save_familiarity(folder: RunFolder, made: Personal, file: str) -> dict[str, Any]:
    """Write what a general model needs; return what changes in the record."""
    if made.familiarity is None:
        return {}
    texts = Update({"texts": Dense(made.familiarity.texts)}, made.delivered.spec)
    save(folder, file, texts)
    return {"general": {**made.body["general"], "digest": digest_update(texts), "file": file}}


def read_familiarity(folder: RunFolder, body: Mapping[str, Any]) -> Familiarity | None:
    """What the general model of this personal record needs beside the kept and the shared one;

    None: nothing.
    """
    general = body.get("general", {})
    if "digest" not in general:
        return None
    texts = read_model(folder, general["file"], general["digest"]).entries["texts"]
    return Familiarity(plain(texts))


def keep_received(
    folder: RunFolder, ledger: Ledger, task: TrainRequest, model: Update, digest: str
) -> None:
    """Keep the shared model that a training task came with, unless it is the base or is kept
    already.
    """
    if task.round == 1:
        return
    before = ledger.last(RECEIVED)
    if before is not None and before.body["digest"] == digest:
        return
    file = f"participants/{task.name}/received-{task.round - 1}.safetensors"
    save(folder, file, model)
    body = {
        "round": task.round - 1,
        "rank": task.rank,
        "steps": task.steps,
        "file": file,
        "digest": digest,
    }
    ledger.append(RECEIVED, body)
    if before is not None and before.body["file"] != file:
        (folder.path / before.body["file"]).unlink(missing_ok=True)


def received_before(ledger: Ledger) -> dict[int, tuple[str, int, int]]:
    """By round of training: digest of the shared model that came with it, rank and steps, as far as
    they are recorded.
    """
    rows = [entry.body for entry in ledger.entries(RECEIVED)]
    return {
        int(row["round"]) + 1: (str(row["digest"]), int(row["rank"]), int(row["steps"]))
        for row in rows
    }


def sent_with(task: TrainRequest, scale: float) -> Update:
    """The shared model that training starts from, as a change of the base's weights."""
    if task.start is None:
        return task.held
    if task.layout == "product":
        return task.held.plus(task.start)
    factors = {
        name: entry for name, entry in task.start.entries.items() if name.endswith((":a", ":b"))
    }
    return task.held.plus(product(Update(factors, task.start.spec), scale))


def last_shared(ledger: Ledger) -> tuple[str, Mapping[str, Any]] | None:
    """(file, record) of the newest shared model known here: the one delivered in the end, or the
    last one received.
    """
    final, received = ledger.last("shared"), ledger.last(RECEIVED)
    if final is not None:
        return SHARED_FILE, final.body
    return None if received is None else (received.body["file"], received.body)


def load_shared(folder: RunFolder, ledger: Ledger) -> tuple[Update, Mapping[str, Any]] | None:
    """That model, checked against its digest, and its record."""
    found = last_shared(ledger)
    return None if found is None else (read_model(folder, found[0], found[1]["digest"]), found[1])


def recorded_models(kind: str, body: Mapping[str, Any]) -> dict[str, str]:
    """File -> digest of the models that a record of kind `personal` names; none where they are kept
    elsewhere.
    """
    if kind != PERSONAL or body.get("kept") == "participant":
        return {}
    own = f"participants/{body['name']}"
    file, local = (
        body.get("file", f"{own}/personal.safetensors"),
        body.get("local_file", f"{own}/local.safetensors"),
    )
    models = {file: body["digest"], local: body["local_digest"]}
    general = body.get("general", {})
    return models | ({general["file"]: general["digest"]} if "digest" in general else {})


def recorded_personal(ledger: Ledger, alone: bool) -> Mapping[str, Any] | None:
    """The newest record of a personal model that was made alone, or of the one made in the
    federation.
    """
    rows = [e.body for e in ledger.entries(PERSONAL) if bool(e.body.get("alone", False)) is alone]
    return rows[-1] if rows else None


def save_alone(
    folder: RunFolder, ledger: Ledger, made: Personal, begun: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Keep a personal model that was made alone, beside all older ones. begun: what it began
    from.
    """
    digests = {"digest": digest_update(made.delivered), "local_digest": digest_update(made.local)}
    own = PurePosixPath("participants") / str(made.body["name"])
    files = {
        "file": str(own / f"alone-{digests['digest'][:16]}.safetensors"),
        "local_file": str(own / f"alone-{digests['local_digest'][:16]}.safetensors"),
    }
    save(folder, files["file"], made.delivered)
    save(folder, files["local_file"], made.local)
    general = _save_familiarity(
        folder, made, str(own / f"alone-{digests['digest'][:16]}-{FAMILIAR}")
    )
    body = {**made.body, **digests, **files, **general, "alone": True, "begun": dict(begun)}
    return ledger.append(PERSONAL, body).body
