"""The objects of a project's images, written as GeoJSON files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qpannot.errors import ProjectError, QpannotError
from qpannot.exchange.naming import name_files
from qpannot.qupath import Project, ProjectImage
from qpannot.qupath.geojson.fitting import Fitted
from qpannot.qupath.geojson.writing import write_geojson


@dataclass(frozen=True)
class Exported:
    """An image whose objects were written.

    Parameters
    ----------
    image
        The image.
    path
        The file.
    fitted
        What was written, and what was repaired, split or left out for QuPath to read it.
    """

    image: ProjectImage
    path: Path
    fitted: Fitted


@dataclass
class ExportResult:
    """What became of images that were to be exported, and of those that could not be read."""

    exported: list[Exported] = field(default_factory=list)
    failed: list[tuple[ProjectImage, QpannotError]] = field(default_factory=list)


def export_geojson(
    project: Project,
    output: Path,
    *,
    images: Sequence[ProjectImage] | None = None,
    annotations_only: bool = False,
    compress: bool = False,
    pretty: bool = False,
    each: Callable[[ProjectImage, int, int], None] = lambda image, done, total: None,
) -> ExportResult:
    """Write a GeoJSON file for each image. The project stays as it is.

    Parameters
    ----------
    output
        A folder, made if need be; files are named after the images (`naming.name_files`). For a
        single image it may be the file itself, ending in ``.geojson``, ``.json`` or either with
        ``.gz``.
    images
        Only these; all by default.
    annotations_only
        Leave detections, cells, tiles and TMA cores out.
    compress
        Write ``.geojson.gz`` into the folder.
    pretty
        See `write_geojson`.
    each
        Called before each image with it, how many are done and how many there are.

    Raises
    ------
    ProjectError
        When nothing can be written there.
    """
    chosen = list(project.images) if images is None else list(images)
    files = _files(project, chosen, output, ".geojson.gz" if compress else ".geojson")
    result = ExportResult()
    for done, image in enumerate(chosen):
        each(image, done, len(chosen))
        try:
            objects = image.annotations() if annotations_only else image.objects()
        except QpannotError as error:
            result.failed.append((image, error))
            continue
        fitted = write_geojson(files[image.id], objects, pretty=pretty)
        result.exported.append(Exported(image, files[image.id], fitted))
    return result


def _files(
    project: Project, chosen: Sequence[ProjectImage], output: Path, suffix: str
) -> dict[str, Path]:
    is_file = len(chosen) == 1 and output.name.lower().removesuffix(".gz").endswith(
        (".geojson", ".json")
    )
    folder = output.parent if is_file and not output.is_dir() else output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProjectError(
            folder,
            f"cannot be made ({error.strerror or error}).",
            hint="Choose another folder with --output.",
        ) from error
    if folder != output:
        return {chosen[0].id: output}
    return {key: output / (name + suffix) for key, name in name_files(project.images).items()}
