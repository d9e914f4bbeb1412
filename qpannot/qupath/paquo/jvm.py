"""QuPath's Java inside this process, as paquo starts it: once, quietly, and never after a fork.

All that is awkward about it is kept here: importing ``paquo.java`` starts it, it cannot be
started again, it hangs in a process that was forked from the one it runs in, and it prints.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qpannot.errors import QpannotError
from qpannot.qupath.paquo.installation import (
    FIRST_SUPPORTED,
    Installation,
    find_installation,
    paquo_settings,
    version_tuple,
)
from qpannot.qupath.paquo.trial import why_java_does_not_start

_log = logging.getLogger(__name__)

# Ctrl-C and SIGTERM stay Python's, and no window or dock icon appears
_JAVA_OPTIONS = ("-Xrs", "-Djava.awt.headless=true")

_HINT = (
    f"QuPath {'.'.join(map(str, FIRST_SUPPORTED))} or newer with its own Java is needed: "
    "'qpannot qupath install' fetches one, PAQUO_QUPATH_DIR names another. backend 'builtin' "
    "needs none."
)
_JAVA_HINT = (
    "Look at the variable JAVA_TOOL_OPTIONS and at limits of memory (ulimit -v), if any are set. "
)


@dataclass(frozen=True)
class RunningQuPath:
    """The QuPath that runs in this process.

    Parameters
    ----------
    folder
        Where it is installed.
    version
        As QuPath itself says, such as ``"0.6.0"``.
    pid
        The process it was started in.
    output
        Java's stdout and stderr, a ``ByteArrayOutputStream``.
    """

    folder: Path
    version: str
    pid: int
    output: Any


def start() -> RunningQuPath:
    """Return the QuPath of this process, which is started if it does not run yet.

    Raises
    ------
    QpannotError
        When there is none, it is too old, it does not start, or the process was forked from the
        one that it runs in. It names the place, the reason and what to do.
    """
    started = _start()
    if isinstance(started, QpannotError):
        raise started
    if started.pid != os.getpid():
        raise QpannotError(
            f"QuPath runs in process {started.pid}, of which this one is a fork: Java cannot be "
            "used in it.",
            hint="Open projects in worker processes with backend='builtin', or start the workers "
            "by 'spawn' instead of 'fork'.",
        )
    return started


@contextlib.contextmanager
def running() -> Iterator[RunningQuPath]:
    """Run QuPath code: it is started if need be, and what it prints goes to the log.

    Raises
    ------
    QpannotError
        As `start`.
    """
    qupath = start()
    try:
        yield qupath
    finally:
        text = str(qupath.output.toString())
        qupath.output.reset()
        _log_lines(text)


def is_wanted_by_auto() -> bool:
    """Tell whether ``auto`` may start QuPath here; logs why not where one was to be expected.

    A worker process never does: it was forked, or is one of many.
    """
    if multiprocessing.parent_process() is not None:
        return False
    try:
        if not _has_started() and find_installation() is None:
            return False
        start()
    except QpannotError as error:
        _warn_once(str(error.message))
        return False
    return True


@cache
def _warn_once(reason: str) -> None:
    _log.warning("QuPath is not used, projects are read without it: %s", reason)


def _has_started() -> bool:
    return _start.cache_info().currsize > 0


@cache  # Java starts once in a process, and not again where that failed
def _start() -> RunningQuPath | QpannotError:
    try:
        installation = find_installation()
        if installation is None:
            return QpannotError(
                "no QuPath installation is found on this machine.",
                hint="'qpannot qupath install' fetches one; or set PAQUO_QUPATH_DIR to the folder "
                "of a QuPath, or use backend 'builtin', which needs none.",
            )
        return _start_in(installation)
    except QpannotError as error:
        return error


def _start_in(installation: Installation) -> RunningQuPath:
    if not installation.is_supported:
        raise _unusable(installation, f"it is version {installation.version}")
    settings = paquo_settings()
    given = settings.get("java_opts") or ()
    options = [given] if isinstance(given, str) else list(given)
    settings["qupath_dir"] = str(installation.folder)
    settings["java_opts"] = [*options, *_JAVA_OPTIONS]
    try:
        import jpype
        from paquo.jpype_backend import find_qupath, start_jvm

        if jpype.isJVMStarted():
            raise _unusable(installation, "another Java program runs in this process already")
        java = find_qupath(**settings)
        if problem := why_java_does_not_start(java.jvm_path, java.jvm_options):
            raise _unusable(installation, problem, hint=_JAVA_HINT)
        with _output_to_log():
            version = start_jvm(finder_kwargs=settings)
            import paquo.java
    except (ImportError, OSError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise _unusable(installation, str(error).strip() or type(error).__name__) from error
    if version is None or version_tuple(version) < FIRST_SUPPORTED:
        raise _unusable(installation, f"it is version {version}")
    output = paquo.java.ByteArrayOutputStream()
    printed = paquo.java.PrintStream(output, True, "UTF-8")
    paquo.java.System.setOut(printed)
    paquo.java.System.setErr(printed)
    import paquo._logging  # remembers stdout and stderr as they are now, and asks for debug output

    if paquo.java.LogManager:
        paquo.java.LogManager.setWarn()
    logging.getLogger("paquo").addHandler(logging.NullHandler())
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_leave_to_parent)
    _log.debug("QuPath %s of %s runs in this process", version, installation.folder)
    return RunningQuPath(installation.folder, str(version), os.getpid(), output)


def _unusable(installation: Installation, reason: str, hint: str = "") -> QpannotError:
    return QpannotError(
        f"the QuPath at {installation.folder} ({installation.found_by}) cannot be used: {reason}.",
        hint=hint + _HINT,
    )


def _leave_to_parent() -> None:
    """Keep a forked child from waiting for a Java that it does not have.

    It would when it ends, and whenever Python collects garbage: JPype then has Java do so as well.
    """
    import jpype.config
    import paquo._logging

    jpype.config.onexit = False
    jpype.config.destroy_jvm = False
    atexit.unregister(paquo._logging._java_log_cleanup)
    gc.callbacks[:] = [each for each in gc.callbacks if getattr(each, "__module__", "") != "_jpype"]


@contextlib.contextmanager
def _output_to_log() -> Iterator[None]:
    """Send what native code writes to stdout and stderr to the log: Java greets on both."""
    with tempfile.TemporaryFile() as file:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        saved: dict[int, int] = {}
        for descriptor in (1, 2):
            with contextlib.suppress(OSError):  # a process without a terminal may have neither
                saved[descriptor] = os.dup(descriptor)
                os.dup2(file.fileno(), descriptor)
        try:
            yield
        finally:
            for descriptor, copy in saved.items():
                os.dup2(copy, descriptor)
                os.close(copy)
            file.seek(0)
            _log_lines(file.read().decode("utf-8", "replace"))


def _log_lines(text: str) -> None:
    for line in filter(None, map(str.strip, text.splitlines())):
        _log.debug("%s", line)
