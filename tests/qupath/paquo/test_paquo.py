"""What is particular to the paquo backend: Java in the process, and how `auto` chooses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import shapely

from qpannot.errors import FormatError
from qpannot.qupath import Annotation, PathClass, open_project

SAMPLE = "written-by-qupath/0.6.0/project"


def run(
    code: str, *arguments: object, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, for what happens once in one."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=check,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of an empty project."""
    with open_project(tmp_path / "study", "x", backend="builtin"):
        return tmp_path / "study"


@pytest.fixture
def sample(shared_data: Path, tmp_path: Path) -> Path:
    """A copy of a project that real QuPath wrote."""
    return Path(shutil.copytree(shared_data / "qupath" / SAMPLE, tmp_path / "sample"))


OPEN = (
    "import sys; from qpannot.qupath import open_project;"
    "print(open_project(sys.argv[1], backend=sys.argv[2]).backend);"
)


def test_auto_reads_without_a_qupath_that_is_not_there_and_says_so_once(
    folder: Path, tmp_path: Path
) -> None:
    code = OPEN + "open_project(sys.argv[1]); print('jpype' in sys.modules)"
    shown = run(code, folder, "auto", PAQUO_QUPATH_DIR=str(tmp_path / "none"))
    assert shown.stdout.split() == ["builtin", "False"]
    assert shown.stderr.count("QuPath is not used") == 1 and "none" in shown.stderr


def test_paquo_without_a_qupath_is_an_error_that_names_the_place(
    folder: Path, tmp_path: Path
) -> None:
    shown = run(OPEN, folder, "paquo", check=False, PAQUO_QUPATH_DIR=str(tmp_path / "none"))
    assert shown.returncode == 1 and "QpannotError: PAQUO_QUPATH_DIR is" in shown.stderr
    assert str(tmp_path / "none") in shown.stderr and "qpannot qupath find" in shown.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the layout of QuPath's folder is Linux' here")
@pytest.mark.parametrize(
    ("version", "says"), [("0.3.2", "it is version 0.3.2"), ("0.6.0", "cannot be used")]
)
def test_a_qupath_that_does_not_start_is_an_error_and_auto_does_without(
    folder: Path, tmp_path: Path, version: str, says: str
) -> None:
    for name in (f"lib/app/qupath-core-{version}.jar", "lib/runtime/lib/server/libjvm.so"):
        path = tmp_path / "fake" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"neither a jar nor a library")
    place = str(tmp_path / "fake")
    shown = run(OPEN, folder, "paquo", check=False, PAQUO_QUPATH_DIR=place)
    assert shown.returncode == 1 and says in shown.stderr and str(tmp_path / "fake") in shown.stderr
    assert "builtin" in shown.stderr
    shown = run(OPEN, folder, "auto", PAQUO_QUPATH_DIR=place)
    assert shown.stdout.split() == ["builtin"] and says in shown.stderr


def test_nothing_of_java_is_imported_where_no_qupath_is_found(folder: Path, tmp_path: Path) -> None:
    code = OPEN + "print({'jpype', 'paquo', 'dynaconf'} & set(sys.modules))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PAQUO_", "CONDA_"))}
    shown = subprocess.run(
        [sys.executable, "-c", code, str(folder), "auto"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**environment, "HOME": str(tmp_path), "USERPROFILE": str(tmp_path)},
    )
    backend, imported = shown.stdout.splitlines()
    if backend == "paquo":
        pytest.skip("a QuPath is installed on this machine")
    assert (backend, imported) == ("builtin", "set()")


def test_auto_uses_the_qupath_that_is_found(folder: Path, qupath: str) -> None:
    shown = run(OPEN, folder, "auto")
    assert shown.stdout.split() == [qupath] and shown.stderr == ""


LIST = """
import sys
from qpannot.qupath import ImageChanges, PathClass, open_project
def is_running():
    return "jpype" in sys.modules and sys.modules["jpype"].isJVMStarted()
with open_project(sys.argv[1], "r+") as project:
    image = project.images[0]
    image.name, image.server, image.fingerprint(), project.classes
    project.update_images({image.id: ImageChanges(metadata={"state": "seen"}, tags={"seen": True})})
    project.set_classes([*project.classes, PathClass("New", (1, 2, 3))])
    print("jpype" in sys.modules, len(image.annotations()) > 0, is_running())
"""


def test_java_starts_when_annotations_are_read_and_not_before(sample: Path, qupath: str) -> None:
    shown = run(LIST, sample)
    assert (shown.stdout.split(), shown.stderr) == (["False", "True", "True"], "")


NO_JAVA = [
    pytest.param("-Xmx1k", "", "Too small maximum heap", id="no heap"),
    pytest.param("-Xmx3m", "", "8 MB of memory", id="little heap"),
    pytest.param("-Xnonsense", "", "-Xnonsense", id="no such option"),
    pytest.param(
        os.environ.get("JAVA_TOOL_OPTIONS", ""),
        "import resource as r; r.setrlimit(r.RLIMIT_AS, (3 << 30, r.getrlimit(r.RLIMIT_AS)[1]));",
        "Java does not start",
        id="little address space",
        marks=pytest.mark.skipif(sys.platform != "linux", reason="as Linux limits it"),
    ),
]


@pytest.mark.parametrize(("options", "before", "says"), NO_JAVA)
def test_a_java_that_cannot_start_is_told_and_auto_does_without(
    sample: Path, qupath: str, options: str, before: str, says: str
) -> None:
    read = OPEN + "print(len(open_project(sys.argv[1], backend=sys.argv[2]).images[0].objects()))"
    shown = run(before + read, sample, "auto", JAVA_TOOL_OPTIONS=options)
    assert shown.stdout.split()[0] == "builtin" and int(shown.stdout.split()[1]) > 0
    (line,) = [line for line in shown.stderr.splitlines() if "Picked up" not in line]
    assert "QuPath is not used" in line and says in line
    shown = run(before + read, sample, qupath, check=False, JAVA_TOOL_OPTIONS=options)
    assert shown.returncode == 1 and f"at {os.environ['PAQUO_QUPATH_DIR']} (" in shown.stderr
    assert (
        "QpannotError: the QuPath" in shown.stderr
        and says in shown.stderr
        and "JAVA_TOOL_OPTIONS" in shown.stderr
    )
    assert "backend 'builtin' needs none" in shown.stderr


def test_doctor_goes_on_where_java_cannot_start(qupath: str) -> None:
    code = "from qpannot.cli import main; main()"
    shown = run(code, "doctor", "--json", check=False, JAVA_TOOL_OPTIONS="-Xmx1k")
    found = {each["what"]: each for each in json.loads(shown.stdout)}
    assert "Too small maximum heap" in found["project backend"]["meaning"]
    assert found["project backend"]["verdict"] == "absent" and "disk" in found


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"PathAnnotationObject", b"PathAnnotationOfLater", "qupath.lib.objects.PathAnnotationOf"),
        (b"java.util.Locale", b"java.util.Lokale", "does not know (java.util.Lokale)"),
        (b"\xac\xed\x00\x05", b"\xac\xed\x00\x06", "no QuPath data file, or damaged"),
    ],
)
def test_what_java_cannot_read_is_told_in_words(
    sample: Path, qupath: str, old: bytes, new: bytes, says: str
) -> None:
    path = sample / "data" / "1" / "data.qpdata"
    path.write_bytes(path.read_bytes().replace(old, new[: len(old)]))
    with pytest.raises(FormatError) as caught:
        open_project(sample, backend="paquo").images[0].annotations()
    assert says in caught.value.message and "Exception" not in caught.value.message
    assert str(path) in caught.value.message and "qpannot snapshots" in (caught.value.hint or "")


FORK = """
import gc, os, sys
from qpannot.errors import QpannotError
from qpannot.qupath import open_project
project = open_project(sys.argv[1], backend="paquo")
if (child := os.fork()) == 0:
    gc.collect()
    try:
        project.images[0].annotations()
    except QpannotError as error:
        print("child:", error, flush=True)
    print(open_project(sys.argv[1], backend="builtin").images[0].name, flush=True)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(project.images[0].annotations()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_gets_an_error_and_ends(sample: Path, qupath: str) -> None:
    shown = run(FORK, sample)
    said, _, name, last = shown.stdout.splitlines()
    assert said.startswith("child: QuPath runs in process") and "fork" in said
    assert name == "CMU-1-Small-Region.svs" and last == "7 11"


WORKERS = """
import multiprocessing, sys
from qpannot.qupath import open_project
def backend_of(path):
    return open_project(path).backend
if __name__ == "__main__":
    print(backend_of(sys.argv[1]))
    for method in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(pool.apply_async(backend_of, [sys.argv[1]]).get(60))
"""


def test_workers_never_start_java(folder: Path, tmp_path: Path, qupath: str) -> None:
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    shown = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=300
    )
    backends = shown.stdout.split()
    assert backends[0] == qupath and set(backends[1:]) == {"builtin"}, shown.stderr


INTERRUPT = """
import os, signal, sys, time
from qpannot.qupath.paquo import jvm
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run with nohup
jvm.start()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
except KeyboardInterrupt:
    print("Python stopped it")
"""


@pytest.mark.skipif(os.name == "nt", reason="no signals between processes on this system")
def test_ctrl_c_stays_pythons(qupath: str) -> None:
    assert run(INTERRUPT).stdout == "Python stopped it\n"


PRINT = """
import sys, logging
logging.basicConfig(level=logging.DEBUG, filename=sys.argv[1])
from qpannot.qupath.paquo import jvm
with jvm.running():
    from jpype import JClass
    JClass("java.lang.System").out.println("said on stdout")
    JClass("java.lang.System").err.println("said on stderr")
print("done")
"""


def test_what_java_prints_goes_to_the_log(tmp_path: Path, qupath: str) -> None:
    shown = run(PRINT, tmp_path / "log")
    assert (shown.stdout, shown.stderr) == ("done\n", "")
    log = (tmp_path / "log").read_text()
    assert "DEBUG:qpannot.qupath.paquo.jvm:said on stdout" in log and "said on stderr" in log


def test_json_of_a_command_is_nothing_but_json(sample: Path, qupath: str) -> None:
    code = "from qpannot.cli import main; main()"
    shown = run(code, "status", sample, "--backend", "paquo", "--json")
    assert json.loads(shown.stdout)["images"][0]["name"] == "CMU-1-Small-Region.svs"
    assert "WARN" not in shown.stderr and "SLF4J" not in shown.stderr


def rest_of(data: Any) -> list[str]:
    """What a data file holds but for objects: workflow steps, stains, properties, as text."""
    found = []
    for each in data._contents:
        name = "" if each is None else str(each.getClass().getName())
        if name.endswith("Workflow"):
            found += [f"{step.getName()} {step}" for step in each.getSteps()]
        elif not name.endswith("PathObjectHierarchy"):
            found.append(str(each))
    return found


def test_a_write_adds_no_workflow_step_and_keeps_stains_and_properties(
    sample: Path, qupath: str
) -> None:
    from qpannot.qupath.paquo.data import JavaData

    path = sample / "data" / "1" / "data.qpdata"
    before = JavaData.parse(path.read_bytes(), source=path)
    image = open_project(sample, "r+", backend="paquo").images[0]
    image.write_annotations(add=[Annotation(shapely.box(0, 0, 9, 9))])
    after = JavaData.parse(path.read_bytes(), source=path)
    assert before.image_type == after.image_type != "UNSET"
    assert rest_of(before) == rest_of(after)
    assert before.qupath_version == after.qupath_version == "0.6.0"


def test_qupath_itself_reads_the_objects_and_the_grid_of_cores(sample: Path, qupath: str) -> None:
    from jpype import JClass

    from qpannot.qupath.paquo import jvm

    with jvm.running():
        read = JClass("qupath.lib.io.PathIO").readHierarchy
        file = JClass("java.io.File")
        for image in open_project(sample, "r+", backend="paquo").images:
            path = file(str(sample / "data" / image.id / "data.qpdata"))
            before = read(path)
            added = Annotation(shapely.box(0, 0, 9, 9), path_class=PathClass("New", (1, 2, 3)))
            image.write_annotations(add=[added])
            after = read(path)
            assert after.nObjects() == before.nObjects() + 1
            ids = [str(each.getID()) for each in after.getFlattenedObjectList(None)]
            assert str(added.id) in ids
            grids = before.getTMAGrid(), after.getTMAGrid()
            assert [grid is None for grid in grids] in ([True, True], [False, False])
            if grids[0] is not None:
                names = [[str(core.getName()) for core in g.getTMACoreList()] for g in grids]
                assert names[0] == names[1] and names[0]
