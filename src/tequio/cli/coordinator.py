"""The commands of a coordinator:

`coordinator init`, `invite`, `locate`, `renew`, `start` and `check`.
"""

from pathlib import Path
from typing import Annotated

import typer

from tequio.cli import output
from tequio.cli.log import Log, LogFile, Metrics, event_handler, parse_address
from tequio.cli.options import Json, Lang, Threads, finish, go_on_with, set_threads, stoppable

coordinator = typer.Typer(
    help="Coordinate a federation across a network.", no_args_is_help=True, rich_markup_mode=None
)


@coordinator.command("init")
def coordinator_init(
    folder: Annotated[
        Path, typer.Argument(help="New folder for certificates, invitations and the run.")
    ],
    federation: Annotated[
        Path, typer.Argument(help="federation.toml, with everybody on the roster.")
    ],
    address: Annotated[
        str, typer.Option("--address", help="host:port at which participants reach this machine.")
    ],
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="Of a real authority, PEM.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Its key, PEM.")] = None,
    authority: Annotated[
        Path | None, typer.Option("--authority", help="Who signed it, PEM.")
    ] = None,
    json: Json = False,
) -> None:
    """Make certificates, and one invitation for each participant."""
    from tequio.app.network.hub.folder import init_coordinator_folder

    given = [path for path in (certificate, key, authority) if path is not None]
    if given and len(given) < 3:
        raise typer.BadParameter(
            "give --certificate, --key and --authority together, or none of them"
        )
    own = (given[0], given[1], given[2]) if given else None
    config, invitations = init_coordinator_folder(folder, federation, address, own)

    words = (
        f"Wrote {len(invitations)} invitations. Each is a secret for one participant:",
        *(f"  {path}" for path in invitations),
        "Give each to its participant by a way that both trust, then: tequio coordinator start "
        f"{folder}",
    )
    facts = {"federation": config.name, "invitations": [str(path) for path in invitations]}
    output.emit(facts, json, lambda: output.say(*words))


@coordinator.command("invite")
def coordinator_invite(
    folder: Annotated[Path, typer.Argument(help="Folder that `coordinator init` made.")],
    name: Annotated[str, typer.Argument(help="Who, as the roster in federation.toml calls it.")],
    json: Json = False,
) -> None:
    """Invite one on the roster anew: the invitation before, and the key that joined with it, count
    no more.
    """
    from tequio.app.network.hub.folder import invite

    path = invite(folder, name)

    words = (
        f"Wrote {path}, a secret for {name}. The invitation before it counts no more,",
        "nor does the key that joined with it. A coordinator that runs need not be stopped.",
    )
    output.emit({"name": name, "invitation": str(path)}, json, lambda: output.say(*words))


@coordinator.command("locate")
def coordinator_locate(
    folder: Annotated[Path, typer.Argument(help="Folder that `coordinator init` made.")],
    federation: Annotated[Path, typer.Argument(help="Where federation.toml is now, unchanged.")],
    json: Json = False,
) -> None:
    """Repair a folder that was moved: keep where its federation.toml is now."""
    from tequio.app.network.hub.folder import locate_federation

    locate_federation(folder, federation)
    words = f"{folder} finds {federation} again. Now: tequio coordinator start {folder}"
    output.emit(
        {"folder": str(folder), "federation": str(federation)},
        json,
        lambda: output.out.print(words),
    )


@coordinator.command("renew")
def coordinator_renew(
    folder: Annotated[Path, typer.Argument(help="Folder that `coordinator init` made.")],
    json: Json = False,
) -> None:
    """Make a new certificate, by the authority that is in the invitations: participants connect
    again as they are.
    """
    from tequio.app.network.hub.certificates import renew

    result = renew(folder)

    which = (
        "The certificate"
        if result["shown"]
        else "SuperLink's certificate (yours is renewed at its authority)"
    )
    words = (
        f"{which} lasts until {result['until']}; participants need no new invitation.",
        "A coordinator that runs shows the old one until you stop it and: tequio coordinator "
        f"start {folder}",
    )
    output.emit(result, json, lambda: output.say(*words))


@coordinator.command("start")
def coordinator_start(
    folder: Annotated[Path, typer.Argument(help="Folder that `coordinator init` made.")],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option("--port", help="Port to listen on. Default: that of --address.")
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", help="Minutes to wait for participants to join.", min=0)
    ] = 1440.0,
    deadline: Annotated[
        float, typer.Option("--deadline", help="Minutes for one exchange of a round.", min=0)
    ] = 60.0,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            help="Minutes to wait, after the last round, for participants that are away.",
            min=0,
        ),
    ] = 10.0,
    threads: Threads = 0,
    lang: Lang = "en",
    metrics: Metrics = None,
    log: Log = "plain",
    log_file: LogFile = None,
    json: Json = False,
) -> None:
    """Start, or go on with, the federation; ends with the report.

    One that is over opens again for who has no personal model yet.
    """
    from tequio.app.network.coordinator.serve import Times, coordinate
    from tequio.app.network.monitoring.health import Health

    set_threads(threads)
    health = Health("coordinator", event_handler(log, log_file), parse_address(metrics))
    with (
        output.progress(json or log == "json") as watch,
        stoppable(lambda: go_on_with(f"tequio coordinator start {folder}")),
    ):
        outcome = coordinate(
            folder, host, port, Times(60.0 * wait, 60.0 * deadline, 60.0 * grace), health, watch
        )
    finish(outcome.folder, lang, json)


@coordinator.command("check")
def coordinator_check(
    folder: Annotated[Path, typer.Argument(help="Folder that `coordinator init` made.")],
    address: Annotated[
        str | None,
        typer.Option("--address", help="host:port to ask. Default: the one in the invitations."),
    ] = None,
    json: Json = False,
) -> None:
    """Look at secrets, certificates and ports, and at what a stranger reaches from outside; exit
    code 1 if something fails.
    """
    from tequio.app.network.monitoring.check import check_coordinator

    findings = check_coordinator(folder, address)
    failed = sum(row["status"] == "FAIL" for row in findings)

    def words() -> None:
        for row in findings:
            fix = [f"{'':<21} {row['fix']}"] if row["fix"] else []
            output.say(f"{row['status']:<8} {row['check']:<12} {row['what']}", *fix)
        output.say(f"{failed} of {len(findings)} failed." if failed else "Nothing failed.")

    output.emit({"ok": not failed, "findings": findings}, json, words)
    if failed:
        raise typer.Exit(1)
