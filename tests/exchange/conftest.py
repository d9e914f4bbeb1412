from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qpannot.qupath import Project, open_project


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    """A project of one.svs (2048 x 1536 px), two.svs and glass.svs."""
    with open_project(project_folder, "r+") as opened:
        yield opened
