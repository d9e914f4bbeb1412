"""``qpannot snapshots``: what was kept before each write, and how to get it back."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qpannot.cli.common import SKIPPED, BackendOption, JsonOption, ProjectArgument, select_images
from qpannot.errors import ProjectError, QpannotError, UsageError

if TYPE_CHECKING:
    from qpannot.qupath import Annotation, ProjectImage
    from qpannot.qupath.snapshots import Snapshot

QUICKLY_READ = 64 * 2**20
"""The snapshots of a whole project are read for the list up to this size, in bytes; those of
images that were asked for always are."""

FILES = ("project", "classes")


@dataclass(frozen=True)
class Row:
    """One snapshot in the list.

    Parameters
    ----------
    name
        The image's, or what the file is.
    image_id
        ``None`` for the project's own files.
    classes
        How many annotations of each class it holds; ``None`` where it was not read.
    restoring
        What restoring it would change, in words; empty where it was not read.
    error
        Why it cannot be read.
    """

    name: str
    image_id: str | None
    snapshot: Snapshot
    classes: Counter[str] | None = None
    restoring: str = ""
    error: str | None = None


def snapshots(
    project: ProjectArgument = Path(),
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            "-i",
            metavar="IMAGE",
            help="Of these: a name, an ID or a pattern; repeatable.",
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of the project's own file, or of its list of classes: project, classes",
        ),
    ] = None,
    restore: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="Put this snapshot of the --image or --file back."),
    ] = None,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """List what was kept before each write of qpannot's, and put it back.

    Tells of each snapshot how many annotations it holds, and what restoring it would change: how
    many come back, go, or change. Restoring keeps what is there now as a snapshot too, damaged or
    not, so that it can be undone in the same way.

    Of each file the first snapshot, the newest, and some in between are kept, 20 in all.

    Examples:

      qpannot snapshots study

      qpannot snapshots study --image case-7 --restore 3

      qpannot snapshots study --file project --restore 12
    """
    if file not in (None, *FILES):
        raise UsageError(f"--file {file}: there is no such file.", hint="Use project or classes.")
    if images and file:
        raise UsageError("--image goes with no --file.", hint="List or restore one, then another.")
    path = _project_path(project)
    of = {"project": path, "classes": path.parent / "classifiers" / "classes.json"}
    if restore is None:
        _list(path, images, {file: of[file]} if file else {} if images else of, backend, json=json)
    elif file:
        _restore_file(path, file, of[file], restore, backend, json=json)
    elif images:
        _restore_image(path, images, restore, backend, json=json)
    else:
        raise UsageError(
            "Restore what?", hint="Say so with --image NAME, --file project or --file classes."
        )


def _project_path(project: Path) -> Path:
    """Return the project's file, which may be damaged or gone."""
    from qpannot.qupath import find_project
    from qpannot.qupath.files import ProjectFiles

    try:
        return find_project(project)
    except ProjectError:
        kept = ProjectFiles(project).files_with_snapshots() if project.is_dir() else []
        gone = [path for path in kept if path.suffix == ".qpproj"]
        if len(gone) != 1:
            raise
        return gone[0]


def _list(
    path: Path, images: list[str] | None, files: dict[str, Path], backend: str, *, json: bool
) -> None:
    from qpannot.console import counted, say, show_error, show_json, show_next, show_table
    from qpannot.qupath import open_project
    from qpannot.qupath.files import ProjectFiles

    store = ProjectFiles(path.parent.absolute())
    rows: list[Row] = []
    problem: QpannotError | None = None
    unread = False
    if images or files.keys() == set(FILES):
        try:
            with open_project(path, "r", backend) as opened:  # type: ignore[arg-type]
                chosen = select_images(opened, images) if images else list(opened.images)
                found = [(image, image.snapshots()) for image in chosen]
                size = sum(each.size for _, kept in found for each in kept)
                unread = not images and size > QUICKLY_READ
                rows += _unread(found) if unread else _read(found)
        except UsageError:
            raise
        except QpannotError as error:
            problem = error
    for name, file in files.items():
        now = file.read_bytes() if file.is_file() else None
        for each in store.snapshots(file.absolute()):
            rows.append(_file_row(name, each, now))
    if json:
        show_json([_as_json(row) for row in rows])
    else:
        named = shlex.quote(str(path))
        columns = ("image", "number", "there until", "size", "annotations", "restoring changes")
        show_table(columns, [_cells(row) for row in rows])
        total = sum(row.snapshot.size for row in rows)
        say(f"{counted(len(rows), 'snapshot')}, {_size(total)}.")
        if unread:
            show_next([f"see what they hold: qpannot snapshots {named} --image NAME"])
        if rows:
            of = f"--file {next(iter(files))}" if len(files) == 1 else "--image NAME"
            show_next([f"put one back: qpannot snapshots {named} {of} --restore NUMBER"])
    if problem:
        show_error(problem)
    if problem or any(row.error for row in rows):
        raise typer.Exit(SKIPPED)


def _file_row(name: str, snapshot: Snapshot, now: bytes | None) -> Row:
    from qpannot.bootstrap.restoring import file_change

    try:
        change = file_change(snapshot, now)
    except QpannotError as error:
        return Row(name, None, snapshot, error=error.message)
    if change is None:
        return Row(name, None, snapshot, restoring="what is there now cannot be read")
    noun = "image" if name == "project" else "class"
    told = _told(len(change.come_back), len(change.go), len(change.change))
    return Row(name, None, snapshot, restoring=told or f"no {noun}")


def _told(come_back: int, go: int, change: int) -> str:
    counts = {"come back": come_back, "go": go, "change": change}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _unread(found: Sequence[tuple[ProjectImage, Sequence[Snapshot]]]) -> list[Row]:
    return [Row(image.name, image.id, each) for image, kept in found for each in kept]


def _read(found: Sequence[tuple[ProjectImage, Sequence[Snapshot]]]) -> Iterator[Row]:
    from qpannot.console import progress
    from qpannot.qupath.qpdata.datafile import QpData

    total = sum(len(kept) for _, kept in found)
    done = 0
    with progress("Reading", lines=False) as advance:
        for image, kept in found:
            try:
                now = image.annotations() if kept else ()
            except QpannotError:
                now = None
            for each in kept:
                advance(image.name, done, total)
                done += 1
                try:
                    data = QpData.parse(each.read(), source=each.path)
                    then = data.annotations()
                except QpannotError as error:
                    yield Row(image.name, image.id, each, error=error.message)
                    continue
                classes = Counter(one.class_name or "Unclassified" for one in then)
                yield Row(image.name, image.id, each, classes, _change(then, now))


def _change(then: Sequence[Annotation], now: Sequence[Annotation] | None) -> str:
    from qpannot.qupath.annotation import differences

    if now is None:
        return "what is there now cannot be read"
    before = {each.id: each for each in then}
    after = {each.id: each for each in now}
    both = before.keys() & after.keys()
    told = _told(
        len(before.keys() - after.keys()),
        len(after.keys() - before.keys()),
        sum(bool(differences(before[key], after[key])) for key in both),
    )
    return told or "no annotation"


def _cells(row: Row) -> tuple[str, ...]:
    counted = "?"
    if row.error:
        counted = f"unreadable: {row.error}"
    elif row.image_id is None:
        counted = ""  # of images, not of the project's own files
    elif row.classes is not None:
        counted = str(row.classes.total())
        if row.classes:
            counted += f" ({', '.join(f'{name} {n}' for name, n in row.classes.most_common())})"
    name = row.name if row.image_id is not None else f"--file {row.name}"
    number, size = str(row.snapshot.number), _size(row.snapshot.size)
    return name, number, _until(row.snapshot), size, counted, row.restoring


def _until(snapshot: Snapshot) -> str:
    # from its name: the time of the file is that of a copy where the project was copied
    return f"{snapshot.taken.astimezone():%Y-%m-%d %H:%M:%S}"


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "image_id": row.image_id,
        "image": row.name if row.image_id is not None else None,
        "file": row.name if row.image_id is None else None,
        "number": row.snapshot.number,
        "there_until": row.snapshot.taken.isoformat(),
        "size": row.snapshot.size,
        "path": str(row.snapshot.path),
        "annotations": None if row.classes is None else row.classes.total(),
        "classes": row.classes,
        "restoring_changes": row.restoring,
        "error": row.error,
    }


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def _restore_image(path: Path, wanted: list[str], number: int, backend: str, *, json: bool) -> None:
    from qpannot.bootstrap.advice import labels
    from qpannot.bootstrap.restoring import restore_image
    from qpannot.console import counted, say, show_json
    from qpannot.qupath import open_project

    with open_project(path, "r+", backend) as opened:  # type: ignore[arg-type]
        chosen = select_images(opened, wanted)
        if len(chosen) != 1:
            called = labels(opened.images)
            names = ", ".join(called[image.id] for image in chosen[:5])
            raise UsageError(f"Restore which of {names}?", hint="Name one image, or give its ID.")
        image = chosen[0]
        snapshot = _numbered(image.snapshots(), number, image.name)
        was_there = snapshot.of.exists()
        restored = restore_image(opened, image, snapshot)
        status = restored.status
        kept = image.snapshots()[-1] if was_there else None
    if json:
        show_json(
            {
                "image_id": image.id,
                "image": image.name,
                "restored": number,
                "kept_as": kept.number if kept else None,
                "state": status.state.value,
                "why": status.reason,
                "annotations": status.annotations,
                "taken_back": [word.model_dump(mode="json") for word in restored.lifted],
            }
        )
        return
    count = counted(status.annotations or 0, "annotation")
    say(f"{image.name}: {count}, as there until {_until(snapshot)}.")
    for word in restored.lifted:
        by = f" by {word.by}" if word.by else ""
        say(
            f"Taken back: {word.state}{by} on {word.when[:10]}, which was said of the annotations "
            "that went. Where it holds for these too, say it again: qpannot approve"
        )
    say(f"It is {status.state} ({status.reason}).")
    _say_undo(f"--image {image.id}", kept, path)
    say("If the image is open in QuPath, reload it there (File > Reload data): saving would undo.")


def _restore_file(
    path: Path, name: str, of: Path, number: int, backend: str, *, json: bool
) -> None:
    from qpannot.bootstrap.restoring import FileChange, file_change, restore_file
    from qpannot.console import counted, say, show_json
    from qpannot.qupath import open_project
    from qpannot.qupath.files import ProjectFiles

    store = ProjectFiles(path.parent.absolute())
    of = of.absolute()
    snapshot = _numbered(store.snapshots(of), number, of.name)
    was_there = of.exists()
    change = file_change(snapshot, of.read_bytes() if was_there else None) or FileChange()
    changed = restore_file(path.absolute(), snapshot)
    kept = store.snapshots(of)[-1] if was_there else None
    with open_project(path, "r", backend) as opened:  # type: ignore[arg-type]
        images, classes = len(opened.images), len(opened.classes)
    if json:
        show_json(
            {
                "file": name,
                "restored": number,
                "kept_as": kept.number if kept else None,
                "changed": changed,
                "come_back": change.come_back,
                "gone": change.go,
            }
        )
        return
    holds = counted(images, "image") if name == "project" else f"{classes} classes"
    say(f"{of.name}: {holds}, as there until {_until(snapshot)}.")
    if change.come_back and was_there:
        say(f"Back: {', '.join(change.come_back)}.")
    if change.go:
        stays = ""
        if name == "project":
            stays = " Their annotations lie in the project's folder still, and undoing shows them."
        say(f"Gone: {', '.join(change.go)}.{stays}")
    _say_undo(f"--file {name}", kept, path)
    say("If the project is open in QuPath, open it again there: saving would undo this.")


def _say_undo(which: str, kept: Snapshot | None, path: Path) -> None:
    from qpannot.console import say

    if kept is None:  # the file was gone
        return
    say(
        f"What was there is snapshot {kept.number}; to undo this: "
        f"qpannot snapshots {shlex.quote(str(path))} {which} --restore {kept.number}"
    )


def _numbered(kept: Sequence[Snapshot], number: int, name: str) -> Snapshot:
    for each in kept:
        if each.number == number:
            return each
    numbers = ", ".join(str(each.number) for each in kept) or "none"
    raise UsageError(f"{name} has no snapshot {number}.", hint=f"There are: {numbers}.")
