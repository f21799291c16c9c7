"""The commands of a federation across a network: `coordinator init`, `invite`, `start` and `check`, `join`, `participate`, `island`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tequio.cli import show
from tequio.cli.command import Json, Lang, Threads, finish, set_threads, stoppable
from tequio.cli.log import address_of, teller
from tequio.core.errors import ConfigError

Metrics = Annotated[
    str | None,
    typer.Option("--metrics", help="Port on loopback for /metrics (Prometheus) and /health; or host:port."),
]
Log = Annotated[Literal["plain", "json"], typer.Option("--log", help="Events as words, or one JSON object a line.")]
LogFile = Annotated[
    Path | None, typer.Option("--log-file", help="Append events to this file. Default: standard error.")
]

coordinator = typer.Typer(help="Coordinate a federation across a network.", no_args_is_help=True, rich_markup_mode=None)


@coordinator.command("init")
def coordinator_init(
    folder: Annotated[Path, typer.Argument(help="New folder for certificates, invitations and the run.")],
    federation: Annotated[Path, typer.Argument(help="federation.toml, with everybody on the roster.")],
    address: Annotated[str, typer.Option("--address", help="host:port at which participants reach this machine.")],
    certificate: Annotated[Path | None, typer.Option("--certificate", help="Of a real authority, PEM.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Its key, PEM.")] = None,
    authority: Annotated[Path | None, typer.Option("--authority", help="Who signed it, PEM.")] = None,
    json: Json = False,
) -> None:
    """Make certificates, and one invitation for each participant."""
    from tequio.recipes.office import init_office

    given = [path for path in (certificate, key, authority) if path is not None]
    if given and len(given) < 3:
        raise typer.BadParameter("give --certificate, --key and --authority together, or none of them")
    own = (given[0], given[1], given[2]) if given else None
    config, invitations = init_office(folder, federation, address, own)

    def words() -> None:
        show.out.print(f"Wrote {len(invitations)} invitations. Each is a secret for one participant:", markup=False)
        for path in invitations:
            show.out.print(f"  {path}", markup=False)
        show.out.print(
            f"Give each to its participant by a way that both trust, then: tequio coordinator start {folder}"
        )

    show.emit({"federation": config.name, "invitations": [str(path) for path in invitations]}, json, words)


@coordinator.command("invite")
def coordinator_invite(
    folder: Annotated[Path, typer.Argument(help="Folder that `coordinator init` made.")],
    name: Annotated[str, typer.Argument(help="Who, as the roster in federation.toml calls it.")],
    json: Json = False,
) -> None:
    """Invite one on the roster anew: the invitation before, and the key that joined with it, count no more."""
    from tequio.recipes.office import invite

    path = invite(folder, name)

    def words() -> None:
        show.out.print(f"Wrote {path}, a secret for {name}. The invitation before it counts no more,", markup=False)
        show.out.print("nor does the key that joined with it. A coordinator that runs need not be stopped.")

    show.emit({"name": name, "invitation": str(path)}, json, words)


@coordinator.command("start")
def coordinator_start(
    folder: Annotated[Path, typer.Argument(help="Folder that `coordinator init` made.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on. Default: that of --address.")] = None,
    wait: Annotated[float, typer.Option("--wait", help="Minutes to wait for participants to join.", min=0)] = 1440.0,
    deadline: Annotated[float, typer.Option("--deadline", help="Minutes for one exchange of a round.", min=0)] = 60.0,
    grace: Annotated[
        float,
        typer.Option("--grace", help="Minutes to wait, after the last round, for participants that are away.", min=0),
    ] = 10.0,
    threads: Threads = 0,
    lang: Lang = "en",
    metrics: Metrics = None,
    log: Log = "plain",
    log_file: LogFile = None,
    json: Json = False,
) -> None:
    """Start, or go on with, the federation; ends with the report. One that is over opens again for who has no personal model yet."""
    from tequio.recipes.coordinate import Times, coordinate
    from tequio.recipes.vitals import Vitals

    set_threads(threads)
    vitals = Vitals("coordinator", teller(log, log_file), address_of(metrics))
    with (
        show.progress(json or log == "json") as watch,
        stoppable(lambda: _go_on_with(f"tequio coordinator start {folder}")),
    ):
        outcome = coordinate(folder, host, port, Times(60.0 * wait, 60.0 * deadline, 60.0 * grace), vitals, watch)
    finish(outcome.folder, lang, json)


@coordinator.command("check")
def coordinator_check(
    folder: Annotated[Path, typer.Argument(help="Folder that `coordinator init` made.")],
    address: Annotated[
        str | None, typer.Option("--address", help="host:port to ask. Default: the one in the invitations.")
    ] = None,
    json: Json = False,
) -> None:
    """Look at secrets, certificates and ports, and at what a stranger reaches from outside; exit code 1 if something fails."""
    from tequio.recipes.inspect import inspect_office

    findings = inspect_office(folder, address)
    failed = sum(row["status"] == "FAIL" for row in findings)

    def words() -> None:
        for row in findings:
            show.out.print(f"{row['status']:<8} {row['check']:<12} {row['what']}", markup=False)
            if row["fix"]:
                show.out.print(f"{'':<21} {row['fix']}", markup=False)
        show.out.print(f"{failed} of {len(findings)} failed." if failed else "Nothing failed.")

    show.emit({"ok": not failed, "findings": findings}, json, words)
    if failed:
        raise typer.Exit(1)


def join(
    invitation: Annotated[Path, typer.Argument(help="The file that the coordinator gave you.")],
    participant: Annotated[Path, typer.Argument(help="Your participant.toml: your data and hardware.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder. Default: the participant's name, here.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Join a federation: check the coordinator, make a key, and see what will leave this machine before you agree."""
    from tequio.recipes.join import join_federation, prepare

    if json and not yes:
        raise ConfigError("--json does not ask.", "Joining needs your consent.", "Add --yes once you know what leaves.")
    ready = prepare(invitation, participant)
    if not json:
        for line in ready.leaves:
            show.out.print(line, markup=False)
    if not yes and not typer.confirm("Join?"):
        show.out.print("Not joined; nothing was sent.")
        raise typer.Exit(130)
    folder = join_federation(ready, out or Path(ready.invitation.name))

    def words() -> None:
        show.out.print(f"Joined as {ready.invitation.name}. Now: tequio participate {folder}", markup=False)

    show.emit({"name": ready.invitation.name, "folder": str(folder), "leaves": list(ready.leaves)}, json, words)


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
    from tequio.participant.team import team
    from tequio.recipes.participate import follow, stay
    from tequio.recipes.vitals import Vitals

    set_threads(threads)
    with stoppable(lambda: _go_on_with(f"tequio participate {folder}")), team() as together:
        if together.rank > 0:
            follow(folder, together)
            return
        quiet = json and log == "plain" and log_file is None
        vitals = Vitals("participant", teller(log, log_file, quiet), address_of(metrics))
        result = stay(folder, vitals, together)

    def words() -> None:
        show.out.print(f"Your personal model is in {result['run']}. It needs no network:", markup=False)
        show.out.print(f'  tequio predict {result["run"]} {result["name"]} "a text"', markup=False)
        show.out.print(f"  tequio export {result['run']}", markup=False)

    show.emit(result, json, words)


def leave(
    folder: Annotated[Path, typer.Argument(help="Folder that `join` made.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder for what you take along. Default: bundle in it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Leave a federation: the coordinator is told, and models, record and report are put into one folder to go on alone."""
    from tequio.recipes.leave import leave_federation
    from tequio.web.publish import write_report

    if json and not yes:
        raise ConfigError("--json does not ask.", "To come back takes a new invitation.", "Add --yes.")
    if not yes and not typer.confirm("Leave the federation? To come back takes a new invitation."):
        raise typer.Exit(130)
    result = leave_federation(folder, out)
    if result["bundle"] is not None:
        for language in ("en", "es"):
            write_report(Path(result["bundle"]), language, None)

    def words() -> None:
        if result["told"]:
            show.out.print(f"{result['name']} left. The coordinator was told.", markup=False)
        else:
            show.out.print(f"The coordinator was not told: {result['why']}", markup=False)
            show.out.print("It will see you as away. To tell it later, leave again with another --out.")
        if result["bundle"] is None:
            show.out.print("There is nothing to take along: `tequio participate` never ran here.")
        else:
            show.out.print(f"Yours to go on with: {result['bundle']}; README.md in it says how.", markup=False)

    show.emit(result, json, words)


def island(
    folder: Annotated[Path, typer.Argument(help="Folder that `join` made.")],
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Go on alone, with no network: a personal model from the last shared model that came and your own data."""
    from tequio.recipes.island import go_alone

    set_threads(threads)
    with stoppable(lambda: _go_on_with(f"tequio island {folder}")):
        result = go_alone(folder, teller("plain", None, quiet=json))

    def words() -> None:
        show.out.print(f"Chosen on your validation data: {result['chosen']}. Loss on your test data:", markup=False)
        for model, scores in result["test"].items():
            show.out.print(f"  {model}: {scores['loss']:.4f}", markup=False)
        show.out.print(f'Use it: tequio predict {result["run"]} {result["name"]} "a text"', markup=False)

    show.emit(result, json, words)


def _go_on_with(again: str) -> str:
    return f"Stopped. What was finished is kept. Go on with: {again}"
