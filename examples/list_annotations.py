"""Print every annotation of a QuPath project: its image, class and area, and where it came from.

python examples/list_annotations.py qpannot-demo/project
"""

import sys

from qpannot import open_project
from qpannot.qupath.proposals import is_proposal, is_untouched


def main(path: str) -> None:
    """Print one line an annotation."""
    with open_project(path) as project:
        for image in project.images:
            mpp = image.server.mpp
            for annotation in image.annotations():
                area = annotation.geometry.area
                shown = f"{area * mpp.x * mpp.y / 1e6:.3f} mm²" if mpp else f"{area:,.0f} px²"
                origin = "drawn by a person"
                if is_proposal(annotation):
                    untouched = is_untouched(annotation)
                    origin = "proposed" if untouched else "proposed, then corrected by a person"
                print(image.name, annotation.class_name, shown, origin, sep="\t")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
