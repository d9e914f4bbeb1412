"""What every section of a recipe is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a recipe: it knows its keys, and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
