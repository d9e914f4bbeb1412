"""The command line. Commands import what they need when they run, so that help is quick."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys

import typer

from qpannot import __version__
from qpannot.cli import (
    ablation,
    demo,
    doctor,
    evaluation,
    exchange,
    loop,
    network,
    projects,
    qupath,
    review,
    scripts,
    snapshots,
)
from qpannot.cli.helping import plain_help
from qpannot.errors import QpannotError

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C, and after SIGTERM, with which a cluster or a system ends a job."""

EXAMPLES = """
[bold]The loop, as you live it[/]

  qpannot init slides/*.svs -o study     make a QuPath project of slides
  qpannot bootstrap study                propose annotations; again after each
                                         correction
  qpannot review study                   correct them in napari, or in QuPath
  qpannot status study --pictures look   see where every slide stands

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done with some slides skipped (and named).
"""

app = typer.Typer(
    name="qpannot",
    help="Annotation and active learning for QuPath projects.",
    epilog="Try it: qpannot demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qpannot {__version__}")
        raise typer.Exit


@app.callback(help="Annotation and active learning for QuPath projects.\n\n" + EXAMPLES)
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None: ...


app.command("init")(projects.init)
app.command("bootstrap")(loop.bootstrap)
app.command("status")(loop.status)
app.command("approve")(loop.approve)
app.command("review")(review.review)
app.command("train")(network.train)
app.command("predict")(network.predict)
app.command("evaluate")(evaluation.evaluate)
app.command("ablation")(ablation.ablation)
app.command("relink")(projects.relink)
app.command("snapshots")(snapshots.snapshots)
app.add_typer(exchange.export_app, name="export")
app.add_typer(exchange.import_app, name="import")
app.add_typer(scripts.app, name="scripts")
app.add_typer(qupath.app, name="qupath")
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
plain_help(app)


def main() -> None:
    """Run the command line; a person's mistake ends in a message and an exit code."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it says, our errors say better
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # terminals that know no umlauts
    # so that locks are given back and half-written files are taken away
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(TERMINATED))
    try:
        app()
    except QpannotError as error:
        _show(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # whoever read our output has seen enough, as "head" has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reason = f"{where}{error.strerror or error}."
        _show(QpannotError(reason, hint="Check the path, its permissions and free space."))
        sys.exit(1)
    except SystemExit as ended:
        if ended.code in (INTERRUPTED, TERMINATED):
            sys.stderr.write("Stopped. Run the same command again to go on from here.\n")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(error: QpannotError) -> None:
    from qpannot.console import show_error, show_json

    show_error(error)
    if "--json" in sys.argv:  # a script reads what we write, and nothing was written yet
        show_json({"error": error.message, "next": error.hint, "exit_code": error.exit_code})
