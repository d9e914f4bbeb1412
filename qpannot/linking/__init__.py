"""Between project entries and slide files: the slide of an entry, an entry for a slide.

The one place where the rooms ``qupath`` and ``slide`` meet.
"""

from qpannot.linking.adding import AddedSlides, add_slides, describe_slide, find_slides
from qpannot.linking.known import known_slides, remember_slides
from qpannot.linking.opening import THUMBNAIL, open_image
from qpannot.linking.recognising import Evidence, check_is_slide
from qpannot.linking.relinking import Relinked, link_to, relink, rename_places
from qpannot.linking.resolution import state_mpp

__all__ = [
    "THUMBNAIL",
    "AddedSlides",
    "Evidence",
    "Relinked",
    "add_slides",
    "check_is_slide",
    "describe_slide",
    "find_slides",
    "known_slides",
    "link_to",
    "open_image",
    "relink",
    "remember_slides",
    "rename_places",
    "state_mpp",
]
