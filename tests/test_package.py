from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import qpannot

PACKAGE = Path(qpannot.__file__).parent
REPOSITORY = PACKAGE.parent

LEVELS = (
    {"errors", "geometry", "affine", "recipe", "console", "torchvision_import"},
    {"qupath", "slide"},
    {"linking", "tissue", "vectorize", "heatmap", "pictures", "health"},
    {"models", "sampling"},
    {"training", "inference", "evaluation"},
    {"demo", "bootstrap", "exchange"},
    {"review"},
    {"cli"},
    {"__main__"},
)
"""The rooms, from the ground up. Rooms of one level do not know each other."""

NEIGHBOURS = {
    ("recipe", "errors"),
    ("console", "errors"),
    ("errors", "geometry"),
    ("affine", "geometry"),
}
"""Within the ground, who may know whom."""


def level_of(room: str) -> int:
    (level,) = (index for index, rooms in enumerate(LEVELS) if room in rooms)
    return level


def rooms_and_imports() -> list[tuple[Path, str, str]]:
    found = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
                if node.module == "qpannot":
                    names = [f"qpannot.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                head, _, rest = name.partition(".")
                room = rest.split(".")[0]
                if head == "qpannot" and room and not room.startswith("__"):
                    found.append((path, parts[0], room))
    return found


def test_imports_only_go_down_the_house() -> None:
    imports = rooms_and_imports()
    assert imports
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {room}"
        for path, own, room in imports
        if own != room and level_of(own) <= level_of(room) and (own, room) not in NEIGHBOURS
    ]
    assert not wrong


def test_importing_the_package_imports_none_of_its_rooms() -> None:
    code = "import qpannot, sys; print(sorted(n for n in sys.modules if n.startswith('qpannot.')))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("name", qpannot.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(qpannot, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        qpannot.nonsense  # noqa: B018


def test_the_readme_and_ci_run_the_same_commands() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    ci = REPOSITORY / ".ci" / "run"
    if not ci.exists():
        pytest.skip("not a checkout of the repository")
    (command,) = (line for line in ci.read_text().splitlines() if "pytest" in line)
    assert f"\n{command}\n" in readme
    assert "-m qpannot demo" in readme or ".venv/bin/qpannot demo" in readme


def test_torchvision_can_be_imported_beside_any_torch() -> None:
    pytest.importorskip("torch")
    code = (
        "from qpannot.torchvision_import import import_torchvision\n"
        "assert import_torchvision().models.mobilenet_v2\n"
        "from torchvision.transforms import v2"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
