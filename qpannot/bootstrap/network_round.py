"""The second half of a round with a network: which slides next, and its proposals (AN2)."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from qpannot.bootstrap.acquisition import Candidate, Ranked, rank
from qpannot.bootstrap.learning import tells_apart
from qpannot.bootstrap.outcome import Outcome
from qpannot.bootstrap.predicting import (
    heatmaps_of,
    kept_refinement,
    openers_of,
    refined_of,
)
from qpannot.bootstrap.proposing import PROPOSABLE, Findings, Found, Round
from qpannot.bootstrap.records import AND, Choice
from qpannot.bootstrap.scoring import outlines_in
from qpannot.bootstrap.states import ImageStatus, State
from qpannot.bootstrap.work import Work
from qpannot.errors import QpannotError
from qpannot.heatmap import Heatmap, load_heatmap
from qpannot.linking import open_image
from qpannot.models import Bundle, load_bundle
from qpannot.qupath import ProjectImage
from qpannot.qupath.proposals import Origin
from qpannot.sampling import Opener


class NetworkRound:
    """Proposals by the model that is kept, and what refines its heatmaps if the recipe asks for it.

    Which slides come next is told from heatmaps as the patch network makes them: a refined one has
    no gaps where there is glass, so that its mean entropy would tell how much of that there is;
    and only the slides that are chosen need be refined.

    Parameters
    ----------
    number
        Of the round.
    model
        What the model is called in the ledger.
    """

    def __init__(self, work: Work, number: int, model: str) -> None:
        self.work = work
        self.model = model
        self.bundle = _kept_bundle(work, model)
        card, recipe = self.bundle.card, work.recipe
        wanted = recipe.refinement.enabled
        self.refinement = kept_refinement(work, self.bundle) if wanted else None
        method, source = f"AN2: {card.architecture.encoder}", model
        if self.refinement:
            method += f", refined by {self.refinement.card.architecture.design}"
            source = f"{model}{AND}{work.ledger.kept_refinement()}"
        self.origin = Origin(round=number, method=method, model=source)
        settings: dict[str, Any] = {
            "model": card.weights_sha256,
            "heatmap": recipe.heatmap.model_dump(mode="json", exclude={"batch_size"}),
            "outlines": recipe.outlines.model_dump(mode="json"),
            "tissue": recipe.tissue.model_dump(mode="json"),
        }
        if self.refinement:
            settings["refinement"] = self.refinement.card.weights_sha256
        self.settings = settings
        self.round = Round(
            work.project,
            work.ledger,
            recipe,
            number=number,
            method=self.origin.method,
            settings=settings,
            may_clear=True,
        )
        self._heatmaps: dict[str, Path] = {}
        self._outlined: dict[str, Path] = {}

    def targets(
        self, statuses: Sequence[ImageStatus], asked: Collection[str] | None
    ) -> list[ImageStatus]:
        """Return the images that may be proposed for.

        Those without annotations, and those with proposals of another model that nobody touched;
        where a person deleted the proposals, or this model found nothing, there are no others.

        Parameters
        ----------
        asked
            The IDs of images a person asked for: all of these that hold nobody's work.
        """
        found = [each for each in statuses if each.state in PROPOSABLE and not each.error]
        if asked is not None:
            return [status for status in found if status.image.id in asked]
        return [status for status in found if self._is_open(status)]

    def _is_open(self, status: ImageStatus) -> bool:
        record = self.work.ledger.image(status.image.id, status.image.name)
        if status.state is State.PROPOSED:
            is_touched = status.seen is not None and status.seen.touched
            return not is_touched and not any(
                kept.model == self.origin.model for kept in record.standing
            )
        nothing = record.nothing_found
        return not status.rejected and (nothing is None or nothing["settings"] != self.settings)

    def propose(
        self,
        targets: Sequence[ImageStatus],
        n_waiting: int,
        outcome: Outcome,
        *,
        limited: bool = True,
    ) -> None:
        """Propose for the slides that teach most, and record why these.

        Those that wait with an older proposal come first; the others as far as the recipe lets
        slides wait for a person at one time.

        Parameters
        ----------
        n_waiting
            Slides that wait for a person, of ``targets`` or not.
        limited
            Whether the recipe's limit holds.
        """
        recipe = self.work.recipe
        limit = recipe.round.slides if limited else None
        waiting = [each for each in targets if each.state is State.PROPOSED]
        others = [each for each in targets if each.state is not State.PROPOSED]
        free = len(others) if limit is None else max(0, limit - n_waiting)
        considered = [*waiting, *self._candidates(others, free)]
        openers, failed = openers_of(self.work, [status.image for status in considered])
        outcome.failed += failed
        considered = [status for status in considered if status.image.id in openers]
        chosen = {status.image.id for status in waiting}
        ranked = self._ranked(considered, openers, outcome)
        for each in ranked:
            if each.id not in chosen and free > 0 and each.id in self._heatmaps:
                chosen.add(each.id)
                free -= 1
        images = {status.image.id: status.image for status in considered}
        own = {key: openers[key] for key in openers if key in chosen and key in self._heatmaps}
        self._outlined = self._refined(own, outcome)
        order = [each for each in ranked if each.id in self._outlined]
        if order:
            self._record(order)  # first, so that a crash loses no reason
            self.round.propose(
                [images[each.id] for each in order], self.find, outcome, self.work.each
            )

    def _refined(self, openers: dict[str, Opener], outcome: Outcome) -> dict[str, Path]:
        """Return the heatmaps that are outlined: refined ones, if something refines them."""
        heatmaps = {key: self._heatmaps[key] for key in openers}
        name = self.work.ledger.kept_refinement()
        if self.refinement is None or name is None:
            return heatmaps
        folder = self.work.ledger.heatmap_folder(name)
        refined, failed = refined_of(
            self.work, "Refining", self.refinement, folder, openers, heatmaps
        )
        outcome.failed += failed
        return refined

    def _record(self, order: Sequence[Ranked]) -> None:
        ledger = self.work.ledger
        record = ledger.round(self.round.number)
        assert record is not None
        again = {each.id for each in order}
        record.chosen = [each for each in record.chosen if each.image_id not in again]
        record.chosen += [
            Choice(image_id=each.id, score=each.score, reason=each.reason) for each in order
        ]
        ledger.save_round(record)

    def _candidates(self, others: list[ImageStatus], free: int) -> list[ImageStatus]:
        """Return those of which heatmaps are made: no more than are needed to choose from."""
        settings, seed = self.work.recipe.round, self.work.recipe.training.seed
        count = settings.candidates or len(others)
        if settings.choose == "random":
            count = free
        count = max(count, free)
        if free == 0:
            return []
        if count >= len(others):
            return others
        return random.Random(f"{seed} {self.origin.round}").sample(others, count)

    def _ranked(
        self, statuses: Sequence[ImageStatus], openers: dict[str, Opener], outcome: Outcome
    ) -> list[Ranked]:
        work = self.work
        own = {status.image.id: openers[status.image.id] for status in statuses}
        self._heatmaps, failed = heatmaps_of(
            work, "Predicting", self.bundle, work.ledger.heatmap_folder(self.model), own
        )
        outcome.failed += failed
        candidates = [
            Candidate(
                status.image.id,
                status.image.name,
                status.image.metadata,
                partial(self._heatmap, status.image.id),
            )
            for status in statuses
        ]
        return rank(candidates, work.recipe.round.choose, seed=work.recipe.training.seed)

    def _heatmap(self, image_id: str) -> Heatmap | None:
        path = self._heatmaps.get(image_id)
        return load_heatmap(path) if path else None

    def find(self, image: ProjectImage) -> Findings:
        """Return the outlines in a slide's heatmap."""
        heatmap = load_heatmap(self._outlined[image.id])
        with open_image(image, fallback_mpp=self.work.mpp) as slide:
            outlines = outlines_in(heatmap, slide, self.work.recipe)
        return Findings(
            [Found(each.polygon, each.class_name, each.score) for each in outlines],
            self.origin,
            heatmap.mpp,
        )


def _kept_bundle(work: Work, name: str) -> Bundle:
    folder = work.ledger.model_folder(name)
    try:
        bundle = load_bundle(folder)
    except QpannotError as error:
        raise QpannotError(
            error.message,
            hint=f"Put it back from a copy, or delete {folder}: the network is then trained again.",
        ) from error
    if not tells_apart(bundle, work.recipe):
        known = ", ".join(bundle.card.architecture.classes)
        labels = work.recipe.labels
        raise QpannotError(
            f"The model {name} tells {known} apart, and the recipe now says "
            f"{', '.join((labels.rest, *labels.classes))}.",
            hint="Train another on what is reviewed: qpannot bootstrap PROJECT --set "
            "round.train_after=1; or give labels as they were.",
        )
    return bundle
