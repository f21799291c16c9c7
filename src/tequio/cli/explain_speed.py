"""How a run would be computed here, in words: `tequio run --explain-speed`."""

from pathlib import Path

from tequio.cli import output


def print_speed(federation: Path, workers: int, json: bool) -> None:
    """Print which layers, precision and lock-step a run would use on this machine."""
    from tequio.app.simulation.explain_speed import explain
    from tequio.config import load_federation

    found = explain(load_federation(federation), workers)

    def words() -> None:
        threads = f"{found['workers']} at a time, {found['threads']} threads each"
        output.out.print(
            f"On {found['device']} ({found['instructions']}); participants: {threads}.",
            markup=False,
        )
        for base in found["bases"]:
            output.say(
                f"{base['model']}: {base['dtype']}, for {base['why']};", f"  {base['path']}."
            )
            if found["lockstep"] > 1:
                asked = f"[train] lockstep = {found['lockstep']}"
                at_once = (
                    f"{asked}: {base['at_a_time']} participants at a time make their steps together"
                )
                none = f"{asked} has no effect: {base['alone']}"
                output.out.print(f"  {none if base['alone'] else at_once}.", markup=False)
        if found["could_stack"]:
            hint = "Small batches leave a GPU idle: raise [train] lockstep while its memory allows."
            output.out.print(
                f"Participants in lock-step: {found['lockstep']}. {hint}", markup=False
            )

    output.emit(found, json, words)
