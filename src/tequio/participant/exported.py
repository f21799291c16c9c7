"""Read an adapter that `tequio export` wrote, as a change of the base that is in memory here."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from tequio.core.canonical import unpack_tensors
from tequio.core.errors import UpdateError
from tequio.core.files import read_regular
from tequio.core.texts.words import refusal
from tequio.core.update import Dense, Entry, Factored, Update
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.export import hub_id

WEIGHTS, CONFIG, HEAD, LABELS = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "head.safetensors",
    "head.json",
)
MOST_WEIGHTS, MOST_CONFIG = 1 << 32, 1 << 20  # bytes of one file


def exported_folder(path: Path) -> Path | None:
    """Return the folder of the adapter in `path` or in its subfolder adapter/;

    None where there is none.
    """
    return next(
        (folder for folder in (path, path / "adapter") if (folder / WEIGHTS).is_file()), None
    )


def read_exported(
    folder: Path, adapted: AdaptedModel, base: str, labels: tuple[str, ...]
) -> Update:
    """Return the exported adapter, and the head with it, as an update of `adapted`.

    Args:
        folder: as `exported_folder` returns it. It is somebody else's: sizes are bounded, and
            nothing in it is run.
        adapted: the base, with the head that the federation starts from.
        base: as the federation calls its base.
        labels: of the federation, in their order.

    Raises:
        UpdateError: a file cannot be read, or it was made for another base, other modules or other
        labels.
    """
    config = _table(folder / CONFIG)
    named, own = config.get("base_model_name_or_path"), hub_id(base)
    if named is not None and own is not None and named != own:
        raise refusal(UpdateError, "model-unfit", path=folder, key="base")
    tensors = _tensors(folder / WEIGHTS)
    entries: dict[str, Entry] = {}
    for name, shape in adapted.shapes.items():
        b, a = (tensors.pop(f"base_model.model.{name}.lora_{part}.weight", None) for part in "BA")
        if (
            b is None
            or a is None
            or b.ndim != 2
            or a.ndim != 2
            or (b.shape[0], a.shape[1]) != tuple(shape)
        ):
            raise refusal(UpdateError, "model-unfit", path=folder, key="layers")
        entries[name] = Factored(b * _scale(config, folder), a)
    if tensors:
        raise refusal(UpdateError, "model-unfit", path=folder, key="layers")
    if adapted.head:
        entries |= _head(folder, adapted, labels)
    return Update(entries, adapted.spec)


def _head(folder: Path, adapted: AdaptedModel, labels: tuple[str, ...]) -> dict[str, Entry]:
    """Return what the exported head adds to the one that the federation starts from."""
    if tuple(_table(folder / LABELS).get("labels", ())) != labels:
        raise refusal(UpdateError, "model-unfit", path=folder, key="task")
    tensors = _tensors(folder / HEAD)
    start = {name: tensor.cpu() for name, tensor in adapted.head_start.items()}
    if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in start.items()}:
        raise refusal(UpdateError, "model-unfit", path=folder / HEAD, key="task")
    return {name: Dense(tensors[name] - tensor) for name, tensor in start.items()}


def _scale(config: dict[str, Any], folder: Path) -> float:
    """Return α/r of PEFT's configuration."""
    try:
        return float(config["lora_alpha"]) / float(config["r"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise refusal(UpdateError, "damaged", path=folder / CONFIG) from None


def _tensors(path: Path) -> dict[str, Tensor]:
    return {
        name: tensor.float()
        for name, tensor in unpack_tensors(_bytes(path, MOST_WEIGHTS), str(path))[0].items()
    }


def _table(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_bytes(path, MOST_CONFIG))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise refusal(UpdateError, "damaged", path=path)
    return found


def _bytes(path: Path, most: int) -> bytes:
    try:
        return read_regular(path, most)
    except OSError as error:
        raise refusal(UpdateError, "unreadable", path=path, error=error.strerror) from None
