"""What a run of ``bootstrap`` tells people and scripts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpannot.bootstrap.ledger import RoundRecord
    from qpannot.bootstrap.outcome import Outcome
    from qpannot.bootstrap.records import RefinementRecord
    from qpannot.bootstrap.scripts import Installed
    from qpannot.bootstrap.states import ImageStatus
    from qpannot.qupath import Project


def advice_on(project: Project, outcome: Outcome) -> tuple[str, ...]:
    """Return what comes next after a run of bootstrap."""
    from qpannot.bootstrap.advice import next_steps
    from qpannot.bootstrap.ledger import Ledger
    from qpannot.review.unsaved import next_step, unsaved

    advice = next_steps(outcome.statuses, project.path, Ledger.of(project), outcome.recipe)
    return *next_step(project, unsaved(project)), *advice


def show_outcome(
    project: Project, outcome: Outcome, report: Path | None = None, *, advise: bool = True
) -> None:
    """Say what a run of bootstrap did, how things stand, and, if asked to, what comes next."""
    from qpannot.bootstrap.advice import labels
    from qpannot.bootstrap.ledger import Ledger
    from qpannot.console import counted, say, show_next, show_skipped

    called = labels(project.images)
    at_once = outcome.recipe.round.slides
    show_skipped((called.get(image.id, image.name), error) for image, error in outcome.failed)
    if outcome.round is None:
        say(
            "Nothing to propose. (Other settings for proposals that nobody touched: "
            "--image NAME --set KEY=VALUE)"
        )
    if outcome.learned is not None:
        _show_learned(project, outcome.learned)
    for proposed in outcome.proposed:
        area = ", pixel size unknown: the recipe's px settings were used; --mpp tells it"
        if proposed.area_mm2 is not None:
            area = f", {proposed.area_mm2:.3g} mm²"
        count = counted(proposed.annotations, "annotation")
        anew = ", in place of an untouched proposal" if proposed.replaced else ""
        name = called.get(proposed.image_id, proposed.name)
        say(f"  {name}: {count}{area}{anew} ({proposed.seconds:.1f} s)")
    for image in outcome.empty:
        say(f"  {called.get(image.id, image.name)}: nothing found")
    for status in outcome.left_alone:
        name = called.get(status.image.id, status.image.name)
        say(f"  {name}: left alone, it is {status.state} ({status.reason})")
    if outcome.round is not None:
        skipped = f", {len(outcome.failed)} skipped" if outcome.failed else ""
        made = counted(len(outcome.proposed), "slide")
        limit = f" (no more than {at_once} wait at one time)" if at_once else ""
        recipe = f", recipe {outcome.recipe.name}{limit}"
        say(f"Round {outcome.round}: proposed for {made}{skipped}{recipe}.")
    say(f"{counted(len(outcome.statuses), 'image')}: {counts_text(outcome.statuses)}.")
    if outcome.recipe.refinement.enabled and outcome.learned is None:
        kept = Ledger.of(project).kept_refinement()
        say(
            f"Refinement: heatmaps are refined by {kept}."
            if kept
            else "Refinement: no network for it yet; the next round that trains makes one, where "
            f"{outcome.recipe.refinement.train_after} slides are reviewed."
        )
    if report:
        say(f"Report: {report}")
    _show_scripts(project, outcome.scripts)
    if advise:
        show_next(advice_on(project, outcome))


def _show_scripts(project: Project, scripts: Installed) -> None:
    """Say which scripts for QuPath are not as they should be; mostly nothing."""
    from qpannot.console import stderr

    for path in scripts.outdated:
        text = (
            f"{project.folder / path} was changed by somebody and stays as it is; qpannot's own is "
            "another by now. To get that, move yours away: qpannot scripts install"
        )
        stderr().print(text, style="yellow", markup=False)
    if scripts.error:
        text = f"The scripts for QuPath were not put there: {scripts.error.message}"
        stderr().print(text, style="yellow", markup=False)


def _show_learned(project: Project, record: RoundRecord) -> None:
    """Say how the training of a round went, and what it was worth."""
    from qpannot.bootstrap.advice import labels
    from qpannot.bootstrap.scoring import mean_dice
    from qpannot.console import say, show_table

    training, judgement = record.training, record.judgement
    if training is None or judgement is None:
        return
    called = labels(project.images)
    parts = list(training.parts.values())
    shares = ", ".join(f"{parts.count(part)} {part}" for part in ("train", "validation", "test"))
    say(
        f"Trained {training.model} on {len(parts)} slides ({shares}): {training.epochs} epochs in "
        f"{training.seconds:.0f} s, the best was number {training.best_epoch}."
    )
    models = [name for name in (training.before, training.model) if name in judgement.scores]
    rows = []
    for image_id in judgement.scores.get(training.model, {}):
        dices = [judgement.scores[name].get(image_id) for name in models if name]
        cells = [f"{score.dice:.3f}" if score else "" for score in dices]
        rows.append((called.get(image_id, image_id), training.parts[image_id], *cells))
    for part in ("validation", "test"):
        held_out = [
            mean_dice(
                score
                for image_id, score in judgement.scores[name or ""].items()
                if training.parts[image_id] == part
            )
            for name in models
        ]
        if any(dice is not None for dice in held_out):
            cells = [f"{dice:.3f}" if dice is not None else "" for dice in held_out]
            rows.append(("mean", part, *cells))
    show_table(("Dice on slides held out", "part", *map(str, models)), rows)
    if judgement.helped is not None:
        verdict = "The round helped" if judgement.helped else "The round did not help"
        if not judgement.helped and judgement.kept == training.model:
            verdict = "The round neither helped nor harmed"
        say(f"{verdict}: {judgement.kept} is kept.")
    if record.refinement is not None:
        _show_refined(record.refinement, called)


def _show_refined(refinement: RefinementRecord, called: Mapping[str, str]) -> None:
    """Say what came of the refinement stage of a round."""
    from qpannot.bootstrap.refinement.telling import report_of
    from qpannot.console import say, show_table, stderr

    report = report_of(refinement, called)
    if report.is_failure:
        stderr().print(report.told, style="yellow", markup=False)
        return
    say(report.told)
    if report.columns:
        first, *others = report.columns
        rows = []
        for row in report.rows:
            cells = ("" if dice is None else f"{dice:.3f}" for dice in row.dices)
            rows.append((row.slide, row.use, *cells))
        names = (f"{first}, as it was", *(f"refined by {name}" for name in others))
        show_table(("Dice of outlines", "slide", *names), rows)
        say(report.verdict)


def outcome_json(project: Project, outcome: Outcome, report: Path | None) -> dict[str, Any]:
    """Return what a run of bootstrap did, for scripts."""
    from dataclasses import asdict

    learned = outcome.learned
    return {
        "project": str(project.path),
        "recipe": outcome.recipe.name,
        "round": outcome.round,
        "proposed": [asdict(proposed) for proposed in outcome.proposed],
        "nothing_found": [image.name for image in outcome.empty],
        "left_alone": [status.image.name for status in outcome.left_alone],
        "failed": [
            {"image_id": image.id, "name": image.name, "error": error.message, "next": error.hint}
            for image, error in outcome.failed
        ],
        "states": counts(outcome.statuses),
        "training": learned.training.model_dump() if learned and learned.training else None,
        "judgement": learned.judgement.model_dump() if learned and learned.judgement else None,
        "refinement": (learned.refinement.model_dump() if learned and learned.refinement else None),
        "report": str(report) if report else None,
        "next": advice_on(project, outcome),
    }


def counts(statuses: list[ImageStatus]) -> dict[str, int]:
    """Return how many images are in each state."""
    from qpannot.bootstrap.states import State

    return {state.value: sum(status.state is state for status in statuses) for state in State}


def counts_text(statuses: list[ImageStatus]) -> str:
    """Return how many images are in each state, in words."""
    return ", ".join(f"{count} {state}" for state, count in counts(statuses).items() if count)
