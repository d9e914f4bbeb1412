"""The keys of a review: ours, and those of napari that are shown beside them.

Ours are letters that napari's Labels layers leave free, but for these: the digits choose classes
instead of tools, ``[`` and ``]`` change the brush by a part of its size instead of by one pixel, V
hides what is painted even while another layer is selected, and undo also tells the journal. All of
napari's tools keep their letters.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """Something a person can have done.

    Parameters
    ----------
    name
        The method of the review window that does it.
    keys
        As napari writes them; the first is shown.
    text
        What it does, for the person.
    group
        What it belongs to.
    """

    name: str
    keys: tuple[str, ...]
    text: str
    group: str

    @property
    def shown(self) -> str:
        """Its first key as people write it."""
        return self.keys[0].replace("-", "+").replace("Control", "Ctrl")


SLIDES, PAINT, VIEW = "Slides", "Painting", "View"

COMMANDS: tuple[Command, ...] = (
    Command("accept", ("A",), "accept: save, say it is right, open the next", SLIDES),
    Command(
        "save", ("S", "Control-S"), "save; a changed proposal counts as reviewed from then", SLIDES
    ),
    Command("discard", ("Shift-D",), "discard what was not saved (asks)", SLIDES),
    Command("next", ("N",), "next slide that waits", SLIDES),
    Command("previous", ("Shift-N",), "slide before this one", SLIDES),
    Command("skip", ("K",), "skip: come back to it at the end", SLIDES),
    Command("reject", ("Shift-R",), "reject: take the untouched proposals away (asks)", SLIDES),
    Command("send_back", ("Shift-B",), "send back: the slide waits again", SLIDES),
    Command("paint", ("P",), "brush", PAINT),
    Command("erase", ("E",), "eraser", PAINT),
    Command("fill", ("F",), "fill", PAINT),
    Command("polygon", ("G",), "polygon; double-click closes it, Esc forgets it", PAINT),
    Command("pan", ("Z",), "move the view; so does the space bar while held", PAINT),
    Command("smaller_brush", ("[",), "smaller brush", PAINT),
    Command("larger_brush", ("]",), "larger brush", PAINT),
    Command("undo", ("Control-Z",), "undo", PAINT),
    Command("redo", ("Control-Shift-Z",), "redo", PAINT),
    Command("toggle_heatmap", ("H",), "heatmap on or off", VIEW),
    Command("toggle_annotations", ("V",), "annotations on or off", VIEW),
    Command("toggle_outlines", ("O",), "filled or outlines", VIEW),
    Command("finer", ("D",), "finer: paint what is seen at a finer pixel", VIEW),
    Command("whole", ("W",), "the whole slide again", VIEW),
)
CLASS_KEYS = tuple("123456789")
"""Choose the first nine classes."""

BY_NAME = {command.name: command for command in COMMANDS}
