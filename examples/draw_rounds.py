"""Draw what each round of the demo proposed for a slide, beside the known tumour.

python examples/draw_rounds.py qpannot-demo demo-05 rounds.png
"""

import sys
from pathlib import Path

import numpy as np
import shapely
import tifffile
from PIL import Image

from qpannot import Annotation, open_project, open_slide
from qpannot.bootstrap.cropping import crop_to_tissue
from qpannot.bootstrap.ledger import Ledger
from qpannot.demo.slides import MASK_DOWNSAMPLE, TUMOUR, mask_to_geometry
from qpannot.geometry import Size
from qpannot.pictures import captioned, outlined, small_png

PROPOSED, TRUE = (220, 0, 0), (0, 0, 0)


def main(folder: str, name: str, target: str) -> None:
    """Write one picture: a panel for each round in which the slide was proposed for."""
    demo = Path(folder)
    mask = tifffile.imread(demo / "slides" / f"{name}.mask.tif")
    tumour = mask_to_geometry(mask == TUMOUR, MASK_DOWNSAMPLE)
    with open_project(demo / "project") as project:
        (image,) = (image for image in project.images if image.name == f"{name}.svs")
        proposals = Ledger.of(project).image(image.id, image.name).proposals
    with open_slide(demo / "slides" / f"{name}.svs") as slide:
        part = crop_to_tissue(slide.thumbnail(Size(900, 900)), slide.size, [tumour], longest_px=400)

    panels = []
    for number in sorted({proposal.round for proposal in proposals}):
        own = [proposal for proposal in proposals if proposal.round == number]
        area = shapely.union_all([proposal.shape for proposal in own])
        dice = 2 * area.intersection(tumour).area / (area.area + tumour.area)
        shown = [
            Annotation(part.moved(tumour), color=TRUE),
            *(Annotation(part.moved(each.shape), color=PROPOSED) for each in own),
        ]
        panel = outlined(part.overview, part.full_size, shown)
        panels.append(captioned(panel, f"round {number}, {own[0].method[:3]}: Dice {dice:.2f}"))
    Path(target).write_bytes(small_png(_beside(panels), max_bytes=150_000))


def _beside(panels: list[Image.Image]) -> Image.Image:
    gap = np.full((panels[0].height, 12, 3), 255, np.uint8)
    arrays = [part for panel in panels for part in (np.asarray(panel), gap)]
    return Image.fromarray(np.concatenate(arrays[:-1], axis=1))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
