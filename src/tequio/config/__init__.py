"""The two configuration files, strictly read:

`federation.toml` (what all agreed to) and `participant.toml` (never leaves).

`sections`, `methods` and `accounting` are their tables, `federation` and `participant` the files as
a whole. `load` reads them, `presets` resolves methods by name, `stored` is how a record has them,
`explain` answers a wrong value, and `reference` says what each key means.
"""

from tequio.config.federation import Federation
from tequio.config.load import (
    federation_of_text,
    federation_table,
    load_federation,
    load_participant,
    of_table,
    validated,
    whole,
)
from tequio.config.methods import (
    AlgorithmSection,
    DistilSection,
    GateSection,
    LocalSection,
    ScreenSection,
)
from tequio.config.participant import HardwareSection, ParticipantFile, ScheduleSection
from tequio.config.sections import MAIN
from tequio.config.stored import changes, stored

__all__ = [
    "MAIN",
    "AlgorithmSection",
    "DistilSection",
    "Federation",
    "GateSection",
    "HardwareSection",
    "LocalSection",
    "ParticipantFile",
    "ScheduleSection",
    "ScreenSection",
    "changes",
    "federation_of_text",
    "federation_table",
    "load_federation",
    "load_participant",
    "of_table",
    "stored",
    "validated",
    "whole",
]
