"""The scripts for QuPath, as programs: they compile, and real QuPath runs what needs no window.

Groovy is QuPath's own where PAQUO_QUPATH_DIR names a whole QuPath, else that of the command groovy.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qpannot.affine import Affine
from qpannot.bootstrap.loop import bootstrap
from qpannot.geometry import Mpp
from qpannot.heatmap import Heatmap, save_heatmap
from qpannot.qupath import open_project
from qpannot.recipe import load_recipe, workflows_folder

SHARED = workflows_folder() / "qupath" / "shared"
SCRIPTS = sorted((workflows_folder() / "qupath").rglob("*.groovy"))

PARSE = """
import org.codehaus.groovy.control.*
args.each { name ->
    def unit = new CompilationUnit()
    unit.addSource(new File(name))
    unit.compile(Phases.CONVERSION)  // no further: what is imported is not here
    println name
}
"""

RUN = """
import sys
import jpype
from qpannot.qupath.paquo import jvm
with jvm.running():
    from paquo.java import BufferedImage, File, ProjectIO
    for jar in sys.argv[4:]:
        jpype.addClassPath(jar)
    made = jpype.JClass("groovy.lang.GroovyClassLoader")
    loader = made(made.class_.getClassLoader())
    loader.addClasspath(sys.argv[1])
    shell = jpype.JClass("groovy.lang.GroovyShell")(loader)
    path = File(sys.argv[2])
    shell.setVariable("path", path)
    if str(path.getName()).endswith(".qpproj"):
        shell.setVariable("project", ProjectIO.loadProject(path, BufferedImage))
    said = shell.evaluate(sys.argv[3])
sys.stdout.write(str(said))
"""


def groovy_jars() -> list[str]:
    """Return Groovy itself: of the QuPath that is tested with, else of the command groovy."""
    places = []
    if qupath := os.environ.get("PAQUO_QUPATH_DIR"):
        places.append(Path(qupath) / "lib" / "app")
    if command := shutil.which("groovy"):
        places.append(Path(command).resolve().parents[1] / "lib")
    for place in places:
        if jars := sorted(str(jar) for jar in place.glob("groovy*.jar")):
            return jars
    pytest.skip("no Groovy is installed here: neither a whole QuPath nor the command groovy")


def parse(*paths: Path) -> subprocess.CompletedProcess[str]:
    jars = groovy_jars()
    java = shutil.which("java")
    if java is None:
        pytest.skip("no Java is installed here to run Groovy with")
    libraries = sorted({str(Path(jar).parent / "*") for jar in jars})
    return subprocess.run(
        [java, "-cp", os.pathsep.join(libraries), "groovy.ui.GroovyMain", "-e", PARSE]
        + [str(path) for path in paths],
        capture_output=True,
        text=True,
        timeout=120,
    )


def in_qupath(path: Path, code: str) -> str:
    """Run Groovy code beside the shared scripts in a real QuPath without a window."""
    if not os.environ.get("PAQUO_QUPATH_DIR"):
        pytest.skip("PAQUO_QUPATH_DIR names no QuPath to run the scripts in")
    ended = subprocess.run(
        [sys.executable, "-c", RUN, str(SHARED), str(path), code, *groovy_jars()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_script_is_groovy() -> None:
    ended = parse(*SCRIPTS)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert ended.stdout.split("\n")[:-1] == [str(path) for path in SCRIPTS] and len(SCRIPTS) == 9


def test_what_is_no_groovy_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.groovy"
    wrong.write_text(SCRIPTS[0].read_text().replace("(", "", 1))
    assert parse(wrong).returncode != 0


def test_the_menu_calls_what_there_is() -> None:
    window = (SHARED / "ReviewWindow.groovy").read_text()
    calls = [path.read_text().rpartition(".newInstance().")[2].strip() for path in SCRIPTS[:6]]
    assert len(set(calls)) == 6
    assert all(f"void {call} {{" in window for call in calls)


@pytest.fixture
def waiting(project_folder: Path) -> Path:
    """The file of a project in which two slides wait."""
    with open_project(project_folder, "r+", "builtin") as project:
        bootstrap(project, load_recipe("h2gnet", ["tissue.min_area_um2=10000"]))
        return project.path


def test_qpannot_understands_what_is_said_in_qupath(
    waiting: Path, here: Callable[..., Any]
) -> None:
    shown = in_qupath(
        waiting,
        """
        def queue = new SlideQueue(project)
        def (one, two) = queue.waiting()
        def said = [one, two].collect { SlideQueue.describe(it) } as List
        said << SlideQueue.following(two, queue.waiting()).imageName
        queue.say(one, SlideQueue.REVIEWED, 'A;B')
        queue.say(one, SlideQueue.APPROVED, '')
        said << queue.waiting()*.imageName + queue.reviewed()*.imageName
        queue.say(two, SlideQueue.REVIEWED, '')
        said << queue.reviewed()*.imageName
        queue.say(two, SlideQueue.SENT_BACK, 'CD')
        said << queue.waiting()*.imageName
        said.join('\\n')
        """,
    )
    assert shown.splitlines() == [
        "01   one.svs   proposed",
        "02   two.svs   proposed",
        "one.svs",
        "[two.svs]",
        "[two.svs]",
        "[two.svs]",
    ]
    for command in ("status", "bootstrap", "status"):
        said = here(command, waiting, "--json")
        assert said.code == 0, said.err
    images = json.loads(said.out)["images"]
    assert [image["state"] for image in images] == ["approved", "proposed", "unannotated"]
    assert images[1]["why"].startswith("sent back in QuPath by CD on ")
    assert images[0]["metadata"] == {"qpannot.state": "approved"}
    record = json.loads((waiting.parent / "qpannot" / "images" / "1.json").read_text())
    words = [(word["state"], word["by"]) for word in record["words"]]
    assert words == [("reviewed", "A B"), ("approved", "")]


@pytest.mark.parametrize(("shape", "step"), [((90, 600), 1), ((60, 4200), 4)])
def test_a_heatmap_is_shown_where_it_lies_in_the_colour_of_its_class(
    tmp_path: Path, shape: tuple[int, int], step: int
) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((*shape, 2)).astype(np.float32)
    probabilities[:, : shape[1] // 3] = np.nan
    heatmap = Heatmap(
        probabilities,
        ("Non-tumor", "Tumor"),
        Affine(57.375, 57.5, -100.25, 30.0),
        Mpp(0.25, 0.25),
        slide="s",
        model="m",
    )
    path = tmp_path / "heatmap.ome.tif"
    save_heatmap(path, heatmap, colors={"Tumor": (200, 10, 30)})

    shown = in_qupath(
        path,
        """
        def heatmap = new HeatmapFile(path)
        def image = heatmap.image('Tumor')
        def plain = new java.awt.image.BufferedImage(image.width, image.height, 2)
        plain.createGraphics().drawImage(image, 0, 0, null)
        javax.imageio.ImageIO.write(plain, 'png', new File(path.parentFile, 'shown.png'))
        [heatmap.classes.join(','), heatmap.x, heatmap.y, heatmap.width, heatmap.height].join(' ')
        """,
    )

    height, width = shape
    assert shown == f"Non-tumor,Tumor -100.25 30.0 {width * 57.375} {height * 57.5}"
    pixels = np.asarray(Image.open(tmp_path / "shown.png")).astype(int)
    assert pixels.shape == (height // step, width // step, 4)
    squares = probabilities[..., 1].reshape(height // step, step, width // step, step)
    wanted = np.nan_to_num(squares.mean(axis=(1, 3))) * 150
    assert np.abs(pixels[..., 3] - wanted).max() <= 1.2  # the byte's and the alpha's rounding
    is_clear = pixels[..., 3] > 100
    assert np.abs(pixels[is_clear][:, :3] - (200, 10, 30)).max() <= 1
