"""The objects of a project's images, written as GeoJSON files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qpannot.errors import ProjectError, QpannotError, UsageError
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
    """What became of images, and of those that could not be read or their files not written."""

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
        ``.gz``. What cannot be written is told in the result, and the others are.
    images
        Only these; all by default.
    annotations_only
        Leave detections, cells, tiles and TMA cores out.
    compress
        Write ``.geojson.gz``; a file that is named without ``.gz`` gets it.
    pretty
        See `write_geojson`.
    each
        Called before each image with it, how many are done and how many there are.

    Raises
    ------
    UsageError
        When the output is named like a file, and there are several images.
    ProjectError
        When the folder cannot be made.
    """
    chosen = list(project.images) if images is None else list(images)
    files = _files(project, chosen, output, compress=compress)
    result = ExportResult()
    for done, image in enumerate(chosen):
        each(image, done, len(chosen))
        try:
            objects = image.annotations() if annotations_only else image.objects()
            fitted = write_geojson(files[image.id], objects, pretty=pretty)
        except QpannotError as error:
            result.failed.append((image, error))
            continue
        result.exported.append(Exported(image, files[image.id], fitted))
    return result


def _files(
    project: Project, chosen: Sequence[ProjectImage], output: Path, *, compress: bool
) -> dict[str, Path]:
    is_named = output.name.lower().removesuffix(".gz").endswith((".geojson", ".json"))
    if output.is_dir():
        is_named = False
    if is_named and len(chosen) != 1:
        raise UsageError(
            f"{output}: a single file cannot hold {len(chosen)} images.",
            hint="Name a folder, or the one image that the file is for with --image.",
        )
    folder = output.parent if is_named else output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProjectError(
            folder,
            f"cannot be made ({error.strerror or error}).",
            hint="Choose another folder with --output.",
        ) from error
    if is_named:
        packs = compress and output.suffix.lower() != ".gz"
        return {chosen[0].id: output.with_name(output.name + ".gz") if packs else output}
    suffix = ".geojson.gz" if compress else ".geojson"
    return {key: output / (name + suffix) for key, name in name_files(project.images).items()}
