"""`tequio`: start, init, run, report, verify, predict, export, adapt, demo.

Every command takes --json.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import click
import typer

import tequio
from tequio.cli import coordinator, output, participant, status
from tequio.cli.accounts import accounts
from tequio.cli.backup import backup
from tequio.cli.carbon import carbon
from tequio.cli.config import config as config_group
from tequio.cli.data import data
from tequio.cli.doctor import doctor
from tequio.cli.environment import prepare_process
from tequio.cli.missing import explained
from tequio.cli.options import (
    Json,
    Lang,
    Threads,
    finish,
    looks_like_a_file,
    set_threads,
    stoppable,
    stopped_words,
)
from tequio.cli.plan import plan
from tequio.cli.query import query
from tequio.cli.start import start
from tequio.cli.terminal import prepare_streams, read_names_as_utf8
from tequio.core.errors import TequioError

app = typer.Typer(
    help="Fine-tune one open transformer together: unequal hardware, private data, and a centre "
    "that trains too.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(tequio.__version__)
        raise typer.Exit


Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        help="Participants side by side, one thread each; 0: as cores and memory allow.",
        min=0,
    ),
]
Run = Annotated[Path, typer.Argument(help="Folder of a run.")]


@app.callback()
def top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Fine-tune one open transformer together: unequal hardware, private data, and a centre that
    trains too.
    """


app.command()(start)
app.add_typer(data, name="data")
app.command()(doctor)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="New folder for the files.")],
    task: Annotated[
        Literal["classification", "causal"], typer.Option("--task", help="What is learnt.")
    ] = "classification",
    base: Annotated[
        str | None, typer.Option("--base", help="Base model: id, folder or .gguf file.")
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option("--algorithm", help="A method by name, such as fedprox: docs/algorithms.md."),
    ] = None,
    json: Json = False,
) -> None:
    """Write a commented federation.toml and two participant.toml to start from."""
    from tequio.config.starter import write_starter

    path, files = write_starter(folder, task, base, algorithm)

    written = [str(file) for file in files]
    then = f"Put each participant's data where its file says, then: tequio run {path}"
    words = ("Wrote:", *(f"  {file}" for file in written), then)
    output.emit({"federation": str(path), "files": written}, json, lambda: output.say(*words))


@app.command()
def run(
    federation: Annotated[Path | None, typer.Argument(help="federation.toml of a new run.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for the run. Default: runs/NAME-SEED beside federation.toml."
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Resume this run instead.")
    ] = None,
    counterfactuals: Annotated[
        bool,
        typer.Option(
            "--counterfactuals/--no-counterfactuals",
            help="Also train what federation is compared with.",
        ),
    ] = False,
    as_recorded: Annotated[
        bool,
        typer.Option(
            "--as-recorded",
            help="With --resume: the recorded configuration counts, not an edited file.",
        ),
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Instead of the seed in federation.toml.", min=0)
    ] = None,
    explain_speed: Annotated[
        bool,
        typer.Option(
            "--explain-speed", help="Only explain how this machine would compute it, and why."
        ),
    ] = False,
    threads: Threads = 0,
    workers: Workers = 0,
    lang: Lang = "en",
    json: Json = False,
) -> None:
    """Run a federation on this machine, or resume one."""
    from tequio.app.preflight import check_federation, check_run

    if (federation is None) == (resume is None):
        raise typer.BadParameter("give federation.toml or --resume RUN, one of the two")
    if as_recorded and resume is None:
        raise typer.BadParameter("--as-recorded needs --resume RUN")
    if explain_speed and federation is None:
        raise typer.BadParameter("--explain-speed needs federation.toml")
    if federation is not None:
        check_federation(federation)
    if resume is not None:
        check_run(resume)
    from tequio.api.federation import load_federation
    from tequio.api.running import begin, default_folder, go_on

    set_threads(threads)
    if explain_speed and federation is not None:
        from tequio.cli.explain_speed import print_speed

        print_speed(federation, workers, json)
        return
    with output.progress(json) as watch:
        if resume is not None:
            with stoppable(lambda: stopped_words(resume)):
                outcome = go_on(resume, workers, (), as_recorded, watch)
        elif federation is not None:
            found = load_federation(federation)
            found = found if seed is None else found.with_settings(seed=seed)
            target = out or default_folder(found)
            with stoppable(lambda: stopped_words(target)):
                outcome = begin(found, target, counterfactuals, workers, (), watch)
    finish(outcome.folder, lang, json)


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="sentiment, manuals or heart.")] = "sentiment",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder. Default: runs/demo-NAME-SEED here.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Which sample of the data, and all random choices.", min=0)
    ] = 0,
    counterfactuals: Annotated[
        bool,
        typer.Option(
            "--counterfactuals/--no-counterfactuals",
            help="Also train what federation is compared with.",
        ),
    ] = True,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only fetch, and write the files.")
    ] = False,
    participants: Annotated[
        int | None,
        typer.Option(
            "--participants", help="Use only the first N participants. Default: all.", min=1
        ),
    ] = None,
    threads: Threads = 0,
    workers: Workers = 0,
    lang: Lang = "en",
    json: Json = False,
) -> None:
    """Fetch real data and a real model, run a whole federation, and write its report."""
    from tequio.app.demos.catalogue import write_demo
    from tequio.app.simulation.run import resume, start
    from tequio.cli.summary import print_provenance
    from tequio.config import load_federation

    folder = out or Path("runs") / f"demo-{name}-{seed}"
    set_threads(threads)
    target = folder / "run"
    with output.progress(json) as watch, stoppable(lambda: stopped_words(target)):
        if (target / "ledger.sqlite").exists() and not prepare:
            outcome = resume(target, watch, workers)
        else:
            watch("prepare", "fetching data and model", 0, 1)
            path, provenance = write_demo(name, folder, seed, participants=participants)
            if not json:
                print_provenance(provenance)
            if prepare:
                words = f"Wrote {path}. Run it with: tequio run {path}"
                output.emit(
                    {"federation": str(path)}, json, lambda: output.out.print(words, markup=False)
                )
                return
            outcome = start(
                load_federation(path),
                target,
                counterfactuals,
                provenance,
                watch,
                workers,
                (path, None),
            )
    finish(outcome.folder, lang, json)


@app.command()
def report(
    folder: Run,
    lang: Lang = "en",
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file. Default: report.LANG.html in the run.")
    ] = None,
    json: Json = False,
) -> None:
    """Write the report of a run (also an unfinished one) as one offline HTML file, and print its
    summary.
    """
    finish(folder, lang, json, out)


@app.command()
def verify(folder: Run, json: Json = False) -> None:
    """Recompute the chain of records and check every model file against it."""
    result = tequio.verify(folder)

    words = [f"PROBLEM  {problem}" for problem in result["problems"]]
    if result["ok"]:
        words.append(
            f"OK: {result['entries']} records, {result['models']} model files. Head "
            f"{result['head']}"
        )
        words += (
            [f"Outcome {result['outcome']} (two runs with one seed have the same)"]
            if result["outcome"]
            else []
        )
        words.append(
            "This shows that nothing was changed since it was written. It cannot show that what "
            "was written is true; keep the head hash elsewhere to notice a ledger rewritten whole."
        )
    output.emit(result, json, lambda: output.say(*words))
    if not result["ok"]:
        raise typer.Exit(10)


@app.command()
def predict(
    folder: Run,
    participant: Annotated[
        str,
        typer.Argument(
            help="A participant; 'shared' for the shared model, 'shared-BASE' for that of a "
            "further base."
        ),
    ],
    text: Annotated[
        str | None,
        typer.Argument(help="A text, or a prompt; - for those on standard input, one per line."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="JSONL or CSV with a text column, or plain lines; - for standard input."
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            "--column", help="Column with the texts. Default: as the participant's file calls it."
        ),
    ] = None,
    general: Annotated[
        bool,
        typer.Option(
            "--general",
            help="Use the participant's model for texts of all kinds, not only its own.",
        ),
    ] = False,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", help="Most new tokens of a language model.", min=1)
    ] = 60,
    json: Json = False,
) -> None:
    """Predict with a participant's model: one text, or each text of a file."""
    from tequio.app.preflight import check_file, check_run

    if text == "-" and file is None:
        text, file = None, Path("-")
    if (text is None) == (file is None):
        raise typer.BadParameter("give either a text or --file")
    if text is not None and not text.strip():
        raise typer.BadParameter("the text is empty")
    if text is not None and looks_like_a_file(text):
        raise typer.BadParameter(f"{text} is a file: write --file {text}")
    check_run(folder)
    if file is not None and str(file) != "-":
        check_file(file, "texts")
    from tequio.app.models.predict import predict_rows, read_prediction_texts, text_columns

    set_threads(0)
    if file is not None:
        columns = [column] if column is not None else text_columns(folder, participant)
        results = predict_rows(
            folder, participant, read_prediction_texts(file, columns), max_new_tokens, general
        )
    else:
        run = tequio.open_run(folder)
        results = run.predict(
            [text or ""], participant, general=general, max_new_tokens=max_new_tokens
        )

    def words() -> None:
        for row in results:
            number = f"{row['row']}: " if "row" in row else ""
            if "label" not in row:
                output.out.print(
                    f"{number}{'(no text)' if row['completion'] is None else row['completion']}"
                )
            elif row["label"] is None:
                output.out.print(f"{number}(no text)")
            else:
                shares = ", ".join(
                    f"{label} {100 * p:.1f} %" for label, p in row["probabilities"].items()
                )
                output.out.print(f"{number}{row['label']}  ({shares})")

    output.emit({"participant": participant, "predictions": results}, json, words)


@app.command()
def adapt(
    folder: Run,
    participant: Annotated[Path, typer.Argument(help="The newcomer's participant.toml.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="New folder. Default: adapted/NAME OF THE FILE here."),
    ] = None,
    base: Annotated[
        str, typer.Option("--base", help="Which base of the run, where it has several.")
    ] = "main",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Make a newcomer's personal model from a finished run and few examples, and compare with
    starting alone.
    """
    from tequio.app.preflight import check_participant, check_run

    check_run(folder)
    check_participant(participant)
    from tequio.app.models.adapt import adapt as make
    from tequio.cli.summary import print_adapted

    set_threads(threads)
    result = make(folder, participant, out or Path("adapted") / participant.stem, base)
    output.emit(result, json, lambda: print_adapted(result))


@app.command()
def export(
    folder: Run,
    participant: Annotated[
        str | None, typer.Argument(help="One participant, or 'shared'. Default: all.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder. Default: export in the run.")
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Also write the merged model (large).")
    ] = False,
    rank: Annotated[
        str,
        typer.Option("--rank", help="Largest rank of an adapter; 0 or full for the exact rank."),
    ] = "16",
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            help="Of the merged model: float32, bfloat16 or float16. Default: as the base's files.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write adapters in PEFT's format with a model card (and, with --merged, whole models) that
    load without Tequio.

    Each export is compared with the original on the participant's validation data, where they are
    at hand.
    """
    from tequio.app.models.export import parse_rank
    from tequio.cli.summary import print_exported

    set_threads(0)
    written = tequio.export(
        folder, out, participant, merged=merged, rank=parse_rank(rank), dtype=dtype
    )
    output.emit({"exported": written}, json, lambda: print_exported(written))


app.add_typer(coordinator.coordinator, name="coordinator")
app.command()(participant.join)
app.command()(participant.participate)
app.command()(participant.members)
app.command()(participant.leave)
app.command("island")(participant.offline)
app.command()(status.status)
app.command()(backup)
app.command()(query)
app.command()(plan)
app.command()(accounts)
app.add_typer(carbon, name="carbon")
app.add_typer(config_group, name="config")


@app.command()
def version(json: Json = False) -> None:
    """Print the version."""
    output.emit({"version": tequio.__version__}, json, lambda: output.out.print(tequio.__version__))


def main() -> None:
    """Run the command line: every Tequio error becomes one message and an exit code.

    With --json a mistake in the command line does, too.
    """
    read_names_as_utf8()
    prepare_process()
    prepare_streams()
    try:
        if "--json" in sys.argv:
            raise SystemExit(app(standalone_mode=False) or 0)
        app()
    except click.UsageError as error:  # without --json it was told
        where = "tequio" if error.ctx is None else error.ctx.command_path
        words = {
            "error": "UsageError",
            "what": error.format_message(),
            "why": "",
            "fix": f"See: {where} --help",
        }
        output.emit(words, True, lambda: None)
        raise SystemExit(error.exit_code) from None
    except click.Abort:
        raise SystemExit(1) from None
    except (TequioError, ModuleNotFoundError) as raised:
        known = explained(raised)
        if "--json" in sys.argv:
            output.emit(known.as_dict(), True, lambda: None)
        else:
            output.err.print(f"Error: {known}", markup=False)
        raise SystemExit(known.exit_code) from None
    except SystemExit as end:
        if (
            end.code == 130
        ):  # stopped by hand: workers in the middle of something must not hold the process up
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)
        raise


if __name__ == "__main__":
    main()
