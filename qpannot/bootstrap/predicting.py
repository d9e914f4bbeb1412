"""Heatmaps of a project's slides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from qpannot.bootstrap.truth import Failures
from qpannot.bootstrap.work import Work
from qpannot.errors import QpannotError
from qpannot.inference import SlideProgress, predict_slides, refine_slides
from qpannot.linking import check_is_slide, known_slides, open_image
from qpannot.models import Bundle, load_bundle
from qpannot.models.refinement import RefinementBundle, load_refinement
from qpannot.qupath import ProjectImage
from qpannot.sampling import Opener, opener_of


def openers_of(work: Work, images: Iterable[ProjectImage]) -> tuple[dict[str, Opener], Failures]:
    """Return what opens the slides of images, by image ID, and those that cannot be opened."""
    known = known_slides(work.project)
    openers: dict[str, Opener] = {}
    failed: Failures = []
    for image in images:
        try:
            check_is_slide(image, known.get(image.id))
            with open_image(image, fallback_mpp=work.mpp) as slide:
                openers[image.id] = opener_of(slide)
        except QpannotError as error:
            failed.append((image, error))
    return openers, failed


def heatmaps_of(
    work: Work, stage: str, bundle: Bundle, folder: Path, openers: Mapping[str, Opener]
) -> tuple[dict[str, Path], Failures]:
    """Return the heatmaps of slides by image ID, predicted where they are not there already.

    Parameters
    ----------
    stage
        What the work is called while it goes on.
    folder
        Where they are; of one model.
    openers
        What opens the slides, by image ID.
    """
    images = {image.id: image for image in work.project.images}

    def show(progress: SlideProgress) -> None:
        patches = f"({progress.patches_done:,}/{progress.patches:,} patches)"
        name = f"{images[progress.slide].name} {patches}"
        work.each(stage, name, progress.slides_done, progress.slides)

    results = predict_slides(
        openers,
        bundle,
        work.recipe,
        folder,
        colors={each.name: each.color for each in work.project.classes if each.color},
        show=show,
    )
    paths = {result.slide: result.path for result in results if not result.error}
    return paths, [(images[result.slide], result.error) for result in results if result.error]


def refined_of(
    work: Work,
    stage: str,
    bundle: RefinementBundle,
    folder: Path,
    openers: Mapping[str, Opener],
    heatmaps: Mapping[str, Path],
) -> tuple[dict[str, Path], Failures]:
    """Return the refined heatmaps of slides by image ID, made where they are not there already.

    Parameters
    ----------
    stage
        What the work is called while it goes on.
    folder
        Where they are; of one model.
    openers, heatmaps
        What opens the slides, and the patch network's heatmaps, by image ID.
    """
    images = {image.id: image for image in work.project.images}

    def show(progress: SlideProgress) -> None:
        work.each(stage, images[progress.slide].name, progress.slides_done, progress.slides)

    results = refine_slides(
        openers,
        heatmaps,
        bundle,
        folder,
        colors={each.name: each.color for each in work.project.classes if each.color},
        show=show,
    )
    paths = {result.slide: result.path for result in results if not result.error}
    return paths, [(images[result.slide], result.error) for result in results if result.error]


def refines(refinement: RefinementBundle, bundle: Bundle) -> bool:
    """Tell whether a refinement network is for the heatmaps of this patch network."""
    card = refinement.card
    return not card.takes_heatmap or card.patch_model_sha256 == bundle.card.weights_sha256


def kept_refinement(work: Work, bundle: Bundle) -> RefinementBundle | None:
    """Return the network that refines the heatmaps of the kept model, if the loop keeps one.

    Parameters
    ----------
    bundle
        The kept model's.

    Raises
    ------
    QpannotError
        It is damaged, or of another patch network's heatmaps.
    """
    name = work.ledger.kept_refinement()
    if name is None:
        return None
    folder = work.ledger.model_folder(name)
    hint = f"Put it back from a copy, or delete {folder}: heatmaps are then left as they are."
    try:
        refinement = load_refinement(folder)
    except QpannotError as error:
        raise QpannotError(error.message, hint=hint) from error
    if not refines(refinement, bundle):
        raise QpannotError(
            f"{folder} refines the heatmaps of another patch network than {bundle.folder}.",
            hint=hint,
        )
    return refinement


def patch_network(work: Work, folder: Path | None) -> Bundle:
    """Return a patch network, by default the one that the project keeps.

    Raises
    ------
    QpannotError
        There is no such model.
    """
    kept = work.ledger.kept_model()
    if folder is None and kept is None:
        raise QpannotError(
            f"{work.project.path}: no model has been trained on this project.",
            hint="Name a patch network with --model (of 'qpannot train': --patch-model), or train "
            "one: qpannot bootstrap, qpannot train",
        )
    return load_bundle(folder or work.ledger.model_folder(kept or ""))
