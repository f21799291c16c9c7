"""Verification of a run: the chain of records, and every model file against the digest in it."""

from pathlib import Path
from typing import Any

from tequio.app.run_files import HEAD_FILE, SHARED_FILE, base_file, read_model
from tequio.app.saved_models import FAMILIAR, RECEIVED, recorded_models
from tequio.core.errors import TequioError
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger, verify


def verify_run(run: Path) -> dict[str, Any]:
    """Everything that is wrong with a run, in words; `ok` only if nothing is."""
    folder = RunFolder.open(run)
    chain = verify(folder.ledger_path)
    problems = [p.what if p.seq is None else f"record {p.seq}: {p.what}" for p in chain.problems]
    files: dict[str, str] = {}
    outcome = None
    if chain.ok:
        with Ledger.open(folder.ledger_path, read_only=True) as ledger:
            files = model_files(ledger)
            end = ledger.last("end")
            outcome = None if end is None else end.body["outcome"]
        for relative, expected in files.items():
            try:
                read_model(folder, relative, expected)
            except TequioError as error:
                problems.append(str(error))
    return {
        "ok": chain.ok and not problems,
        "entries": chain.entries,
        "head": chain.head,
        "models": sum(not name.endswith(FAMILIAR) for name in files),
        "outcome": outcome,
        "problems": problems,
    }


def model_files(ledger: Ledger) -> dict[str, str]:
    """Every model file of a run -> its digest."""
    every = (_expected(entry.kind, dict(entry.body)) for entry in ledger.entries())
    files = {file: digest for expected in every for file, digest in expected.items()}
    if (received := ledger.last(RECEIVED)) is not None:
        files[received.body["file"]] = received.body["digest"]
    return files


def _expected(kind: str, body: dict[str, Any]) -> dict[str, str]:
    """File -> digest, as one record states them."""
    if kind == "run":
        return {HEAD_FILE: body["head_digest"]} | _of_bases(HEAD_FILE, body, "head_digest")
    if kind in ("shared", "pooled"):
        return {f"{kind}.safetensors": body["digest"]} | _of_bases(SHARED_FILE, body, "digest")
    return recorded_models(kind, body)


def _of_bases(file: str, body: dict[str, Any], key: str) -> dict[str, str]:
    return {base_file(name, file): further[key] for name, further in body.get("bases", {}).items()}
