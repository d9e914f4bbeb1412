"""Whether Java starts, tried in a process of its own.

A Java that cannot start (too little memory, an option it does not know in ``JAVA_TOOL_OPTIONS``,
a broken installation) ends the process it is started in, with exit code 1 and without a word that
Python could catch. So it is started once where that does no harm.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_TIMEOUT_S: Final = 120.0
_SPARE_BYTES: Final = 3 << 29
"""Address space that our process takes beyond that, for Java's threads and JPype.

Measured: where 5.5 GB were enough for all of it, the trial alone got by with 4.3.
"""

_HEAP_BYTES: Final = 8 << 20
"""What JPype and QuPath need to start, of the memory that ``-Xmx`` limits."""

_JNI_VERSION: Final = 0x00010008
_NEW_BYTE_ARRAY: Final = 176
"""Its place among JNI's functions."""

_GREETING: Final = "Picked up "


def why_java_does_not_start(java: Path, options: Sequence[str]) -> str | None:
    """Return what Java says when it cannot start in a process like this one, else ``None``.

    Parameters
    ----------
    java
        The library, such as ``libjvm.so``.
    options
        Those it is to be started with. The variables that Java reads count as well.
    """
    if not sys.executable:  # Python is part of another program, and there is none to run
        return None
    command = [sys.executable, "-I", "-S", __file__, str(java), str(_mapped_bytes()), *options]
    path = os.pathsep.join([str(java.parent.parent), os.environ.get("PATH", "")])
    try:
        with tempfile.TemporaryDirectory(prefix="qpannot-") as folder:
            done = subprocess.run(
                [*command, f"-XX:ErrorFile={folder}/java.log"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT_S,
                env={**os.environ, "PATH": path},  # where Windows looks for what jvm.dll needs
                check=False,
            )
    except subprocess.TimeoutExpired:
        return f"Java has not started within {_TIMEOUT_S:.0f} s"
    except OSError as error:
        return f"Java cannot be tried: {error.strerror or error}"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stdout.decode("utf-8", "replace").splitlines()]
    said = [line.strip("#. ") for line in lines if not line.startswith(_GREETING)]
    said = [line for line in said if line]
    code = done.returncode
    ended = f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
    return f"Java does not start ({'; '.join(said[:3]) or ended})"


def _mapped_bytes() -> int:
    """Return how much address space this process has mapped, which ``ulimit -v`` limits."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class _Option(ctypes.Structure):
    _fields_ = (("text", ctypes.c_char_p), ("extra", ctypes.c_void_p))


class _Arguments(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("options", ctypes.POINTER(_Option)),
        ("ignores_unknown", ctypes.c_uint8),
    )


def _start(java: str, options: Sequence[str]) -> int:
    """Start Java by JNI's ``JNI_CreateJavaVM``; returns 0 where that works."""
    given = (_Option * len(options))(*(_Option(os.fsencode(each), None) for each in options))
    arguments = _Arguments(_JNI_VERSION, len(options), given, 0)
    machine, environment = ctypes.c_void_p(), ctypes.c_void_p()
    create = ctypes.CDLL(java).JNI_CreateJavaVM
    code = int(create(ctypes.byref(machine), ctypes.byref(environment), ctypes.byref(arguments)))
    if code == 0 and not _has_memory(environment):
        raise MemoryError(f"it may not use the {_HEAP_BYTES >> 20} MB of memory that it needs")
    return code


def _has_memory(environment: ctypes.c_void_p) -> bool:
    functions = ctypes.cast(environment, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p))).contents
    prototype = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)
    return bool(prototype(functions[_NEW_BYTE_ARRAY])(environment, _HEAP_BYTES))


def _leave_room(mapped_bytes: int) -> None:
    """Take away from the limit of address space what the asking process has of it already."""
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    limit, most = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        left = max(limit - mapped_bytes - _SPARE_BYTES, 0)
        resource.setrlimit(resource.RLIMIT_AS, (left, most))


if __name__ == "__main__":
    _leave_room(int(sys.argv[2]))
    try:
        code = _start(sys.argv[1], sys.argv[3:])
    except (OSError, AttributeError, MemoryError) as error:
        sys.stderr.write(str(error))
        code = 1
    sys.stderr.flush()
    os._exit(0 if code == 0 else 1)  # without waiting for Java to wind up
