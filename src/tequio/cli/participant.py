"""The commands of a participant across a network: `join`, `participate`, `leave`, `island`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from tequio.cli import output
from tequio.cli.log import Log, LogFile, Metrics, event_handler, parse_address
from tequio.cli.options import Json, Threads, go_on_with, set_threads, stoppable
from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal


def join(
    invitation: Annotated[Path, typer.Argument(help="The file that the coordinator gave you.")],
    participant: Annotated[
        Path, typer.Argument(help="Your participant.toml: your data and hardware.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="New folder. Default: the participant's name, here."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            "--try",
            help="Do not join yet: try an earlier run's shared model (a run's folder, or an "
            "exported one) on your own data, and see whether joining would pay.",
        ),
    ] = None,
    threads: Threads = 0,
    lang: Annotated[
        Literal["en", "es"], typer.Option("--lang", help="Language of what --try finds.")
    ] = "en",
    json: Json = False,
) -> None:
    """Join a federation: check the coordinator, make a key, and see what will leave this machine
    before you agree.
    """
    from tequio.app.preflight import check_file, check_participant

    if model is not None:
        _try(invitation, participant, model, threads, lang, json)
        return
    if json and not yes:
        raise refusal(ConfigError, "consent-needed", action="join")
    check_file(invitation, "invitation")
    if participant.exists():  # where it is not, there is more to say
        check_participant(participant)
    from tequio.app.network.participant.join import join_federation, prepare

    ready = prepare(invitation, participant)
    if not json:
        output.say(*ready.leaves)
    if not yes and not _agreed("Join?", "join"):
        output.out.print("Not joined; nothing was sent.")
        raise typer.Exit(130)
    folder = join_federation(ready, out or Path(ready.invitation.name))

    words = f"Joined as {ready.invitation.name}. Now: tequio participate {folder}"
    facts = {"name": ready.invitation.name, "folder": str(folder), "leaves": list(ready.leaves)}
    output.emit(facts, json, lambda: output.say(words))


def _try(
    invitation: Path,
    participant: Path,
    model: Path,
    threads: int,
    lang: Literal["en", "es"],
    json: bool,
) -> None:
    """Show whether joining would pay, from an earlier shared model at home."""
    from tequio.app.preflight import check_file, check_participant
    from tequio.cli.plan_tables import print_trial

    check_file(invitation, "invitation")
    check_file(model, "model")
    if participant.exists():
        check_participant(participant)
    from tequio.app.network.participant.join import try_before

    set_threads(threads)
    row = try_before(invitation, participant, model)
    output.emit(row, json, lambda: print_trial(row, lang))


def participate(
    folder: Annotated[Path, typer.Argument(help="Folder that `join` made.")],
    threads: Threads = 0,
    metrics: Metrics = None,
    log: Log = "plain",
    log_file: LogFile = None,
    json: Json = False,
) -> None:
    """Hold the model, and train when the coordinator asks; ends when your personal model is made.

    Started by torchrun, all its processes train together, each on its part of every batch.
    """
    _check_joined(folder)
    from tequio.app.network.monitoring.health import Health
    from tequio.app.network.participant.processes import follow
    from tequio.app.network.participant.serve import serve_participant
    from tequio.participant.process_group import join_process_group

    set_threads(threads)
    with (
        stoppable(lambda: go_on_with(f"tequio participate {folder}")),
        join_process_group() as together,
    ):
        if together.rank > 0:
            follow(folder, together)
        else:
            quiet = json and log == "plain" and log_file is None
            health = Health(
                "participant", event_handler(log, log_file, quiet), parse_address(metrics)
            )
            result = serve_participant(folder, health, together)
    if together.rank > 0:
        together.end()

    words = (
        f"Your personal model is in {result['run']}. It needs no network:",
        f'  tequio predict {result["run"]} {result["name"]} "a text"',
        f"  tequio export {result['run']}",
    )
    output.emit(result, json, lambda: output.say(*words))
    together.end()


def members(
    folder: Annotated[Path, typer.Argument(help="Folder that `join` made.")],
    accept: Annotated[
        str | None,
        typer.Option(
            "--accept",
            help="Accept the other key that the coordinator shows for this member by now.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show whose keys masked rounds trust, with a fingerprint to compare with the other
    participants by another channel.
    """
    from tequio.app.network.members import accept_member, describe_members
    from tequio.app.network.participant.join import agreed_digest

    federation = agreed_digest(folder)
    if accept is not None:
        accept_member(folder, accept)
    found = describe_members(folder, federation)
    lines = ["No members yet: they are pinned in the first masked round."]
    if found is not None:
        lines = [f"Fingerprint of {len(found['keys'])} members: {found['fingerprint']}"]
        lines += [f"  {name}: {shown}" for name, shown in found["keys"].items()]
        lines += [
            f"Another key is shown for {name}: {shown}" for name, shown in found["offered"].items()
        ]
        lines.append(
            "Compare it with the other participants by another channel: the coordinator supplied "
            "the keys."
        )
    output.emit({"members": found}, json, lambda: output.say(*lines))


def leave(
    folder: Annotated[Path, typer.Argument(help="Folder that `join` made.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="New folder for what you take along. Default: bundle in it."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Leave a federation: notify the coordinator, and put models, record and report into one
    folder.
    """
    from tequio.app.network.participant.leave import leave_federation
    from tequio.cli.accounts import run_emissions
    from tequio.report.write import write_report

    if json and not yes:
        raise refusal(ConfigError, "consent-needed", action="leave")
    if not yes and not _agreed(
        "Leave the federation? To come back takes a new invitation.", "leave"
    ):
        raise typer.Exit(130)
    result = leave_federation(folder, out, run_emissions)
    if result["bundle"] is not None:
        for language in ("en", "es"):
            write_report(Path(result["bundle"]), language, None)

    def words() -> None:
        if result["told"]:
            words = f"{result['name']} left. The coordinator was notified."
            output.out.print(words, markup=False)
        else:
            words = f"The coordinator was not notified: {result['why']}"
            output.out.print(words, markup=False)
            output.out.print(
                "It will see you as offline. To notify it, leave again with another --out."
            )
        if result["bundle"] is None:
            output.out.print("There is nothing to take along: `tequio participate` never ran here.")
        else:
            output.out.print(
                f"To continue alone, use {result['bundle']}; its README.md says how.", markup=False
            )

    output.emit(result, json, words)


def offline(
    folder: Annotated[Path, typer.Argument(help="Folder that `join` made.")],
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Continue alone, without network: make a personal model from the last shared model and your
    data.
    """
    from tequio.app.network.participant.offline import personalise_offline

    set_threads(threads)
    with stoppable(lambda: go_on_with(f"tequio island {folder}")):
        result = personalise_offline(folder, event_handler("plain", None, quiet=json))

    words = (
        f"Chosen on your validation data: {result['chosen']}. Loss on your test data:",
        *(f"  {model}: {scores['loss']:.4f}" for model, scores in result["test"].items()),
        f'Use it: tequio predict {result["run"]} {result["name"]} "a text"',
    )
    output.emit(result, json, lambda: output.say(*words))


def _check_joined(folder: Path) -> None:
    """Raise the error of a folder that did not join, or of a wrong participant.toml, before torch
    loads.
    """
    import json

    from tequio.app.preflight import check_participant
    from tequio.ledger.folder import IDENTITY

    path = folder / IDENTITY
    if not path.is_file():
        raise refusal(ConfigError, "not-joined", folder=folder, file=IDENTITY)
    try:
        identity = json.loads(path.read_text(encoding="utf-8"))
        name, own = str(identity["name"]), Path(identity["participant"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # said in full where it is read
    if own.exists():
        check_participant(own, name)


def _agreed(question: str, action: Literal["join", "leave"]) -> bool:
    try:
        return typer.confirm(question)
    except typer.Abort:
        if sys.stdin.isatty():  # Ctrl-C
            raise
        raise refusal(ConfigError, "consent-needed", action=action) from None
