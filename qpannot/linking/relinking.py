"""Slides that moved: found by fingerprint, name and picture, or by where everything went.

A file is never guessed: one that could be the slide, but cannot be shown to be, or several that
could, are named instead.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from qpannot.errors import UsageError
from qpannot.linking.known import known_slides, remember_slides
from qpannot.linking.recognising import Evidence, Judgement, recognise
from qpannot.linking.searching import Folders
from qpannot.qupath import ImageChanges, Project, ProjectImage
from qpannot.qupath.places import (
    PlaceChange,
    parts_of,
    path_of_place,
    place_from_uri,
    uri_from_place,
)
from qpannot.qupath.server import is_there, name_from_uri, path_from_uri, uri_from_path
from qpannot.slide.fingerprint import SlideFingerprint, fingerprint_slide

NO_OTHER = "no other file was found that is the slide"

Progress = Callable[[str, int, int], None]
"""Called before each image with its name, how many are done, and how many there are."""


@dataclass(frozen=True)
class Relinked:
    """What became of an image whose slide was looked for.

    Parameters
    ----------
    found
        Where it is now; ``None`` when it was not found.
    why
        What speaks for it, or why it was not found, in words.
    evidence
        ``None`` where the place could not be looked at, or nothing was found.
    uris
        New places of the image's files, by old, as the project spells them.
    candidates
        Files that could be the slide, where there were several or none could be shown to be.
    """

    image: ProjectImage
    found: PurePath | None
    why: str = ""
    evidence: Evidence | None = None
    uris: tuple[tuple[str, str], ...] = ()
    candidates: tuple[Path, ...] = ()


def relink(
    project: Project,
    folders: Sequence[Path],
    *,
    unverified: bool = False,
    dry_run: bool = False,
    each: Progress = lambda name, done, total: None,
) -> list[Relinked]:
    """Point the images whose slides are missing, or plainly are others, to where they are now.

    A file is taken when its fingerprint is that of the slide, whatever its name; or when it is the
    only one of the slide's name that has its size in pixels and the picture of its thumbnail.
    Where one slide was found, the others are looked for in the same way from there first.

    Parameters
    ----------
    folders
        Searched to their depths, at most once, or slide files.
    unverified
        Take the only file of the right name and size, too, where there is no picture to compare,
        or where the file was changed since it was seen.
    dry_run
        Change nothing.

    Returns
    -------
    list of Relinked
        One for each image whose slide was missing, or whose file is another slide.
    """
    search = _Search(project, folders, unverified)
    missing = search.missing
    results = []
    for done, image in enumerate(missing):
        each(image.name, done, len(missing))
        results.append(search.locate(image))
    results = _without_contradictions(results)
    if not dry_run:
        _save(project, results, search.known)
    return results


class _Search:
    def __init__(self, project: Project, folders: Sequence[Path], unverified: bool) -> None:
        self.known = known_slides(project)
        self.unverified = unverified
        self.folders = Folders(folders)
        self.changes: list[PlaceChange] = []
        self.missing: list[ProjectImage] = []
        self.wrong: dict[str, str] = {}
        self.in_use: dict[Path, str] = {}
        for image in project.images:
            path = image.path
            if not (path and is_there(path)):
                self.missing.append(image)
            elif why := self._why_wrong(image, path):
                self.missing.append(image)
                self.wrong[image.id] = why
            else:
                self.in_use[path.resolve()] = image.name

    def _why_wrong(self, image: ProjectImage, path: Path) -> str:
        if image.server.unsupported or len(image.server.uris) != 1:
            return ""  # no single file is to be its picture
        judgement = recognise(path, image, self.known.get(image.id))
        return judgement.why if judgement.evidence <= Evidence.UNLIKE else ""

    def locate(self, image: ProjectImage) -> Relinked:
        """Find the slide of an image."""
        result = self._locate(image)
        wrong = self.wrong.get(image.id)
        if wrong is None or result.found:
            return result
        return replace(result, why=f"{wrong}; {result.why if result.candidates else NO_OTHER}")

    def _locate(self, image: ProjectImage) -> Relinked:
        uris = image.server.uris
        place = place_from_uri(uris[0]) if len(uris) == 1 else None
        if place is None:
            kind = f"its pixels are no single file ({image.server.unsupported or ', '.join(uris)})"
            return Relinked(image, None, kind)
        for guess in self._guesses(place):
            if is_there(guess):
                judgement = self._judge(guess, image)
                if judgement.evidence >= Evidence.ALIKE:
                    return self._found(image, guess, judgement)
        return self._choose(image, uris[0])

    def _guesses(self, place: str) -> Iterator[Path]:
        for change in self.changes:
            if (moved := change.apply(place)) and (path := path_from_uri(uri_from_place(moved))):
                yield path
        parts = parts_of(place)
        for folder in self.folders.roots:
            # the name alone is no guess: there may be others of that name
            for start in range(len(parts) - 1):
                yield folder.joinpath(*parts[start:])

    def _judge(self, path: Path, image: ProjectImage) -> Judgement:
        judgement = recognise(path, image, self.known.get(image.id))
        user = self.in_use.get(path.resolve())
        if user and judgement.evidence < Evidence.SAME:
            return Judgement(Evidence.OTHER, f"{path} is the slide of {user}")
        return judgement

    def _choose(self, image: ProjectImage, uri: str) -> Relinked:
        name, known = name_from_uri(uri), self.known.get(image.id)
        candidates = self.folders.named(name)
        if known:
            candidates += self.folders.of_size(known.size_bytes, Path(name).suffix, candidates)
        judged = [(path, self._judge(path, image)) for path in candidates]
        for least in (Evidence.SAME, Evidence.ALIKE, Evidence.FITS, Evidence.ALTERED):
            fitting = [(path, each) for path, each in judged if each.evidence is least]
            if not fitting:
                continue
            paths = tuple(path for path, _ in fitting)
            if not _are_copies(paths):
                return Relinked(image, None, _listed(paths), candidates=paths)
            if least >= Evidence.ALIKE or self.unverified:
                return self._found(image, *fitting[0])
            why = f"{fitting[0][1].why}; --unverified takes it all the same"
            return Relinked(image, None, why, candidates=paths)
        why = judged[0][1].why if judged else f"no file named {name}"
        return Relinked(image, None, why)

    def _found(self, image: ProjectImage, path: Path, judgement: Judgement) -> Relinked:
        uri = image.server.uris[0]
        new = uri_from_path(path)
        old_place, new_place = place_from_uri(uri), place_from_uri(new)
        change = PlaceChange.between(old_place, new_place) if old_place and new_place else None
        if change and change not in self.changes:
            self.changes.insert(0, change)
        return Relinked(image, path, judgement.why, judgement.evidence, ((uri, new),))


def _are_copies(paths: Sequence[Path]) -> bool:
    if len(paths) == 1:
        return True
    if len({path.stat().st_size for path in paths}) > 1:
        return False
    return len({fingerprint_slide(path) for path in paths}) == 1


def _listed(paths: Sequence[Path]) -> str:
    shown = ", ".join(map(str, paths[:5])) + (f" and {len(paths) - 5} more" if paths[5:] else "")
    return f"any of these could be it: {shown}; choose with --image"


def _without_contradictions(results: Sequence[Relinked]) -> list[Relinked]:
    """Return the results without files that were taken for two slides and proven to be neither."""
    uses: dict[PurePath, set[str]] = {}
    for result in results:
        if result.found:
            uses.setdefault(result.found, set()).add(result.uris[0][0])
    checked = []
    for result in results:
        found = result.found
        if found and len(uses[found]) > 1 and result.evidence is not Evidence.SAME:
            why = f"{found} could be the slide of several images; choose with --image"
            result = Relinked(result.image, None, why, candidates=(Path(found),))
        checked.append(result)
    return checked


def rename_places(
    project: Project,
    change: PlaceChange,
    *,
    unverified: bool = False,
    dry_run: bool = False,
    each: Progress = lambda name, done, total: None,
) -> list[Relinked]:
    """Follow a share, drive or folder that has another name or place now.

    Every image below the old place is pointed to the new one, once its file was found there and
    is the slide (or fits it, where there is nothing to compare).

    Parameters
    ----------
    change
        See `PlaceChange.of`.
    unverified
        Point also to files that cannot be looked at from here, or were changed since they were
        seen. Files that are there and are other slides are refused all the same.
    dry_run
        Change nothing.

    Returns
    -------
    list of Relinked
        One for each image below the old place.

    Raises
    ------
    UsageError
        When there is none.
    """
    if not project.images:
        raise UsageError(
            f"{project.path}: the project has no images.",
            hint=f"Add slides: qpannot init SLIDES... -o {shlex.quote(str(project.folder))}",
        )
    known = known_slides(project)
    moved = [(image, uris) for image in project.images if (uris := _moved(image, change))]
    if not moved:
        places = {place_from_uri(uri) for image in project.images for uri in image.server.uris}
        folders = sorted({_folder_of(place) for place in places if place})
        shown = ", ".join(map(shlex.quote, folders[:5])) or "no place that has a name"
        raise UsageError(
            f"No image of the project is below {change.old}.",
            hint=f"They are below {shown}{', and others' if folders[5:] else ''}.",
        )
    # where the new place can be looked at, a file that is not there is no matter of trust
    blindly = unverified and not is_there(path_from_uri(uri_from_place(change.new)))
    results = []
    for done, (image, uris) in enumerate(moved):
        each(image.name, done, len(moved))
        results.append(_follow(image, uris, known.get(image.id), unverified, blindly))
    if not dry_run:
        _save(project, results, known)
    return results


def _moved(image: ProjectImage, change: PlaceChange) -> tuple[tuple[str, str], ...]:
    return tuple(
        (uri, uri_from_place(new))
        for uri in image.server.uris
        if (place := place_from_uri(uri)) and (new := change.apply(place))
    )


def _folder_of(place: str) -> str:
    return place.rpartition("/")[0]


def _follow(
    image: ProjectImage,
    uris: tuple[tuple[str, str], ...],
    known: SlideFingerprint | None,
    unverified: bool,
    blindly: bool,
) -> Relinked:
    places = [path_of_place(place_from_uri(new) or new) for _, new in uris]
    if blindly:
        return Relinked(image, places[0], "not looked at", None, uris)
    paths = [path_from_uri(new) for _, new in uris]
    for path, place in zip(paths, places, strict=True):
        if not is_there(path):
            return Relinked(image, None, f"{place} is not there, or cannot be reached from here")
    path = paths[0]
    if path is None or len(image.server.uris) > 1:
        return Relinked(image, places[0], "its files are there", Evidence.FITS, uris)
    judgement = recognise(path, image, known)
    if judgement.evidence >= (Evidence.ALTERED if unverified else Evidence.FITS):
        return Relinked(image, path, judgement.why, judgement.evidence, uris)
    return Relinked(image, None, judgement.why)


def link_to(
    project: Project,
    images: Sequence[ProjectImage],
    path: Path,
    *,
    unverified: bool = False,
    dry_run: bool = False,
) -> list[Relinked]:
    """Point images to the file that a person says is theirs, missing or not.

    Their fingerprint may be another, which the result says; their picture only if that is asked
    for, and their size never, since annotations would not lie where they were drawn.

    Parameters
    ----------
    unverified
        Take the file though it shows another picture than the project's thumbnail.

    Raises
    ------
    UsageError
        When the file cannot be read, its size or its picture is another, or the images are of
        several slides.
    """
    uris = {image.server.uris for image in images}
    if len(uris) != 1 or len(images[0].server.uris) != 1:
        names = ", ".join(f"{image.name} (ID {image.id})" for image in images)
        raise UsageError(
            f"{names}: one file cannot be the slide of all of these.",
            hint="Name one image, by its ID where names are the same.",
        )
    known = known_slides(project)
    uri, new = images[0].server.uris[0], uri_from_path(path)
    results = []
    for image in images:
        judgement = recognise(path, image, known.get(image.id))
        if judgement.evidence is Evidence.OTHER:
            raise UsageError(
                f"{image.name}: {judgement.why}.", hint="Nothing was changed. Give another file."
            )
        if judgement.evidence is Evidence.UNLIKE and not unverified:
            raise UsageError(
                f"{image.name}: {judgement.why}; nothing was changed.",
                hint="Give another file, or say --unverified if it is the slide all the same.",
            )
        results.append(Relinked(image, path, judgement.why, judgement.evidence, ((uri, new),)))
    if not dry_run:
        _save(project, results, {})
    return results


def _save(
    project: Project, results: Iterable[Relinked], known: dict[str, SlideFingerprint]
) -> None:
    found = {result.image.id: result for result in results if result.found}
    if not found:
        return
    project.update_images(
        {key: ImageChanges(uris=dict(result.uris)) for key, result in found.items()}
    )
    stays = {
        key: known[key]
        for key, result in found.items()
        if key in known and result.evidence in (None, Evidence.SAME)
    }
    remember_slides(project, (image for image in project.images if image.id in found), stays)
