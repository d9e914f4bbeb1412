"""Runs the real command line in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest


@dataclass(frozen=True)
class Result:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Qpannot(Protocol):
    def __call__(self, *arguments: object, code: int = 0, cwd: Path | None = None) -> Result: ...


@pytest.fixture
def qpannot() -> Qpannot:
    """Run ``qpannot`` with these arguments and insist on its exit code."""

    def run(*arguments: object, code: int = 0, cwd: Path | None = None) -> Result:
        ended = subprocess.run(
            [sys.executable, "-m", "qpannot", *map(str, arguments)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1", "COLUMNS": "200"},
            cwd=cwd,
            timeout=300,
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        return Result(ended.returncode, ended.stdout, ended.stderr)

    return run
