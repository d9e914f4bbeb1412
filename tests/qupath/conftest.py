"""Both backends, for tests of what a project can do whichever one reads it."""

from __future__ import annotations

import os

import pytest

BACKENDS = ("builtin", "paquo")


def need(backend: str) -> str:
    """Skip the test where there is no QuPath for the backend to run."""
    if backend == "paquo" and not os.environ.get("PAQUO_QUPATH_DIR"):
        pytest.skip("PAQUO_QUPATH_DIR names no QuPath to test with")
    return backend


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn."""
    return need(request.param)


@pytest.fixture(params=BACKENDS)
def reader(request: pytest.FixtureRequest) -> str:
    """The backend that reads what ``backend`` wrote."""
    return need(request.param)


@pytest.fixture
def qupath() -> str:
    """The paquo backend alone."""
    return need("paquo")
