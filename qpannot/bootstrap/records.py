"""What the ledger keeps of a round with a network."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

AND = " + "
"""Between the names of models that made a proposal together."""


class Score(BaseModel):
    """How far predicted outlines are a person's, by areas.

    Means over the classes that are there or were predicted; 1 where there are none and none were.
    """

    dice: float
    iou: float
    by_class: dict[str, float]
    """Dice of each class."""


class TrainingRecord(BaseModel):
    """How the network of a round was trained.

    Parameters
    ----------
    model
        What its model is called: ``qpannot/models/<model>/model`` is the bundle.
    before
        The model that was kept until then; it may have gone on from that.
    slides
        What was known of each reviewed slide (`states.key_of`), by image ID.
    parts
        What each slide was for (`qpannot.sampling.Part`), by image ID.
    epochs, best_epoch, stopped, metrics
        See `qpannot.training.TrainingResult`.
    seconds
        Of the run that finished it.
    """

    model: str
    before: str | None
    slides: dict[str, str]
    parts: dict[str, str]
    epochs: int
    best_epoch: int
    stopped: str
    seconds: float
    metrics: dict[str, float]


class Judgement(BaseModel):
    """How the new model and the one before do on the slides neither was fitted to.

    Of a refinement network, the one before is the patch network by itself.

    Parameters
    ----------
    scores
        By model, and by image ID.
    kept
        The model that is gone on with.
    helped
        Whether the new one is better; ``None`` where there is nothing to compare it with.
    """

    scores: dict[str, dict[str, Score]]
    kept: str
    helped: bool | None


class RefinementTraining(BaseModel):
    """How the refinement network of a round was trained (H2G-Net sec. 2.6).

    Parameters
    ----------
    model
        What its model is called.
    patch_model, patch_model_sha256
        Whose heatmaps it refines, and no other's: the name, and the digest of the weights.
    protocol, reason
        Which slides' heatmaps it learned from, and why other ones than were asked for, if so
        (`qpannot.training.Roles`).
    teach, choose
        IDs of the images it learned from, and of those that chose its best epoch.
    epochs, best_epoch, stopped, metrics, seconds
        As in `TrainingRecord`.
    """

    model: str
    patch_model: str
    patch_model_sha256: str
    protocol: Literal["held_out", "paper"]
    reason: str
    teach: list[str]
    choose: list[str]
    epochs: int
    best_epoch: int
    stopped: str
    seconds: float
    metrics: dict[str, float]


class RefinementRecord(BaseModel):
    """What came of the refinement stage of a round.

    Parameters
    ----------
    why_not
        Why nothing was trained, where there were too few slides for it.
    error, hint
        What went wrong, and what to do; the round went on without.
    training
        None where it came to nothing.
    judgement
        Of the refined heatmaps (by the refinement network's name) and those as they were (by the
        patch network's), on slides neither network was fitted to. ``kept`` is the patch network
        where heatmaps are better left alone.
    """

    why_not: str = ""
    error: str = ""
    hint: str = ""
    training: RefinementTraining | None = None
    judgement: Judgement | None = None

    @property
    def kept(self) -> str | None:
        """The refinement network that is used, if one is."""
        if self.training is None or self.judgement is None:
            return None
        kept = self.judgement.kept
        return kept if kept != self.training.patch_model else None


class Choice(BaseModel):
    """A slide that was proposed for, and why."""

    image_id: str
    score: float | None
    reason: str
