"""What is told of the refinement stage of a round, in the terminal and in its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qpannot.bootstrap.records import RefinementRecord, RefinementTraining
from qpannot.bootstrap.scoring import mean_dice
from qpannot.console import counted


@dataclass(frozen=True)
class RefinedRow:
    """A slide that neither network learned from, or the mean of some.

    Parameters
    ----------
    use
        What the slide was for.
    dices
        Of outlines of the heatmap as it was, then of refined ones; as `RefinedReport.columns`.
    is_mean
        Whether it is the mean of the slides of this use.
    """

    slide: str
    use: str
    dices: tuple[float | None, ...]
    is_mean: bool = False


@dataclass(frozen=True)
class RefinedReport:
    """What came of the refinement stage.

    Parameters
    ----------
    told
        What was done, on which slides, in sentences; or why nothing was.
    verdict
        What is gone on with; empty where nothing was judged.
    columns
        Whose heatmaps were compared: the patch network's, then the refinement networks'.
    rows
        Slides by use, and their means.
    is_failure
        Whether something went wrong.
    """

    told: str
    verdict: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[RefinedRow, ...] = ()
    is_failure: bool = False


CHOSE, HELD_OUT = "chose the epoch", "held out"


def report_of(refinement: RefinementRecord, called: Mapping[str, str]) -> RefinedReport:
    """Return what is told of a refinement stage.

    Parameters
    ----------
    called
        What images are called, by ID.
    """
    training, judgement = refinement.training, refinement.judgement
    if refinement.error:
        told = (
            "The refinement network failed, and heatmaps are used as they are: "
            f"{refinement.error} {refinement.hint}"
        )
        return RefinedReport(told, is_failure=True)
    if training is None or judgement is None:
        return RefinedReport(
            "No refinement network was trained, and heatmaps are used as they are: "
            f"{refinement.why_not}"
        )
    first = training.patch_model
    sources = (first, *(name for name in judgement.scores if name != first))
    scores = [judgement.scores[name] for name in sources]
    rows: list[RefinedRow] = []
    for use in (CHOSE, HELD_OUT):
        own = [key for key in scores[0] if (key in training.choose) == (use == CHOSE)]
        for key in own:
            dices = tuple(found[key].dice for found in scores)
            rows.append(RefinedRow(called.get(key, key), use, dices))
        if len(own) > 1:
            means = tuple(mean_dice(found[key] for key in own) for found in scores)
            rows.append(RefinedRow(f"mean of {len(own)}", use, means, is_mean=True))
    return RefinedReport(_told(training), _verdict(refinement), sources, tuple(rows))


def _told(training: RefinementTraining) -> str:
    from qpannot.training.roles import Roles  # loads torch

    roles = Roles(training.protocol, tuple(training.teach), tuple(training.choose), training.reason)
    return " ".join(
        (
            f"Trained {training.model} on heatmaps of {training.patch_model}: "
            f"{counted(training.epochs, 'epoch')} in {training.seconds:.0f} s, the best was number "
            f"{training.best_epoch}.",
            *filter(None, (training.reason, str(roles))),
        )
    )


def _verdict(refinement: RefinementRecord) -> str:
    training, judgement = refinement.training, refinement.judgement
    assert training is not None and judgement is not None
    if refinement.kept is None:
        verdict = "Refining could not be judged" if judgement.helped is None else ""
        verdict = verdict or "Refining did not help"
        return f"{verdict}: heatmaps of {training.patch_model} are used as they are."
    if refinement.kept != training.model:
        return f"The earlier {refinement.kept} refines better: it is kept."
    verdict = "Refining helped" if judgement.helped else "Refining neither helped nor harmed"
    return f"{verdict}: {refinement.kept} is kept."
