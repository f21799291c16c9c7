"""Find mistakes in files and paths before torch is imported, which takes seconds:

TOML, data files, bases, runs.

What is found here is found again, in more detail, when the files are read.
"""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tequio.config import Federation, ParticipantFile, load_federation, load_participant
from tequio.config.accounting import EnergySection
from tequio.core.errors import BaseModelError, ConfigError, DataError
from tequio.core.texts.words import refusal
from tequio.ledger.folder import RunFolder
from tequio.measure.countries import country_intensity
from tequio.measure.intensity import read_intensity


def check_federation(path: Path) -> Federation:
    """Read federation.toml and the participants' files that it names.

    Raises the error of whatever is wrong or is not there.
    """
    config = load_federation(path)
    for model in (config.base.model, *(further.model for further in config.bases)):
        _check_base(model)
    _check_energy(config.energy)
    public = [
        *config.gate.slices.values(),
        config.local.data,
        config.centre.data if config.centre else None,
    ]
    for data in public:
        _check_data(data, "[gate], [centre] or [local]:")
    for entry in config.participants:
        if entry.file is not None:
            check_participant(entry.file, entry.name)
    return config


def check_participant(path: Path, expected: str | None = None) -> ParticipantFile:
    """Read a participant.toml.

    Raises ConfigError or DataError for what is wrong in it, or for data that are not there.
    """
    file = load_participant(path, expected)
    _check_energy(file.energy)
    if file.base is not None:
        _check_base(str(file.base))
    for data in (file.data.path, file.data.train, file.data.validation, file.data.test):
        _check_data(data, f"Participant {file.name}:")
    return file


def check_run(path: Path) -> None:
    """Raises RunError where there is no run in this folder."""
    RunFolder.open(path)


def check_file(path: Path, what: Literal["texts", "invitation", "model"]) -> None:
    """Raises ConfigError where a file that is given on the command line is not there."""
    if not os.path.exists(path):
        raise refusal(ConfigError, "file-missing", path=path, wanted=what)


def _check_data(paths: Path | Sequence[Path] | None, who: str) -> None:
    """Check that files are there; a pattern such as data/*.csv is left to the reader."""
    for path in [paths] if isinstance(paths, Path) else paths or []:
        if not os.path.exists(path) and not glob.has_magic(str(path)):
            raise refusal(DataError, "data-file-missing", file=f"{who} {path}", names=None)


def _check_energy(energy: EnergySection) -> None:
    if energy.intensity is not None:
        read_intensity(energy.intensity, energy.zone)
    if energy.country is not None:
        country_intensity(energy.country)


def _check_base(model: str) -> None:
    path = os.path.expanduser(model)
    is_path = os.path.isabs(path) or model.startswith((".", "~"))
    if is_path and not os.path.exists(path):
        code = "base-file-missing" if model.endswith(".gguf") else "base-folder-missing"
        raise refusal(BaseModelError, code, path=path)
