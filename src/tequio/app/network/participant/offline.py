"""Going on alone: a personal model from the last shared model known and one's own data, with no
network and no coordinator.

It is recorded in the participant's own ledger. Cut off anywhere, nothing half-made counts: the same
command begins again and ends the same.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tequio.app.assembly.allocation import build_hardware, personal_settings
from tequio.app.assembly.profile import ParticipantProfile
from tequio.app.network.participant.join import read_identity
from tequio.app.network.participant.serve import ParticipantService, open_participant
from tequio.app.run_files import recorded_header, recorded_rule
from tequio.app.saved_models import load_shared, recorded_personal, save_alone
from tequio.config import load_participant
from tequio.core.canonical import digest_update
from tequio.core.reason import Reason
from tequio.core.update import zero
from tequio.ledger.folder import RUN
from tequio.participant.personal import personalise
from tequio.planning.allocation import Assignment, allocate


def personalise_offline(folder: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """Make it, or tell the one that is made.

    Raises ConfigError if the folder did not join, RunError if its data changed since.
    """
    identity = read_identity(folder)
    with open_participant(
        folder, load_participant(Path(identity["participant"]), identity["name"]), log
    ) as resident:
        found = load_shared(resident.folder, resident.ledger)
        model, record = found or (zero(resident.node.adapted.spec), {})
        begun = {"round": int(record.get("round", 0)), "digest": digest_update(model)}
        done, federated = (
            recorded_personal(resident.ledger, alone=True),
            recorded_personal(resident.ledger, alone=False),
        )
        if federated is not None:  # made from the last shared model there will be
            done = federated
        elif done is None or done["begun"] != begun:
            said = (
                f"the shared model of round {begun['round']}"
                if found
                else "the base: no shared model is known here"
            )
            log(f"making a personal model from {said}")
            given = _given(resident, dict(record))
            rule = recorded_rule(recorded_header(resident.ledger, resident.folder))
            texts, name = len(resident.node.data.train), resident.node.name
            settings = personal_settings(resident.config, texts, name, given, rule)
            done = save_alone(
                resident.folder, resident.ledger, personalise(resident.node, model, settings), begun
            )
        test = done["test"]
    return {
        "name": identity["name"],
        "run": str(folder / RUN),
        "chosen": done["chosen"],
        "from": begun,
        "test": test,
    }


def _given(resident: ParticipantService, record: dict[str, Any]) -> Assignment:
    """Rank and steps of a round: those that the coordinator gave, else what the own hardware
    allows.
    """
    if "rank" in record and "steps" in record:
        return Assignment(int(record["rank"]), int(record["steps"]), None, Reason("as-asked"))
    adapted, said = (
        resident.node.adapted,
        ParticipantProfile.of(resident.node.name, resident.facts["told"]),
    )
    return allocate(
        build_hardware(said.name, said.hardware, said.speed, adapted.full), resident.agreed.work
    )
