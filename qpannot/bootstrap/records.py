"""What the ledger keeps of a round with a network."""

from __future__ import annotations

from pydantic import BaseModel


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


class Choice(BaseModel):
    """A slide that was proposed for, and why."""

    image_id: str
    score: float | None
    reason: str
