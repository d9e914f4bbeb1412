"""Print every annotation of a QuPath project with its area.

python examples/list_annotations.py study/project.qpproj
"""

import sys

from qpannot import open_project


def main(path: str) -> None:
    """Print one line an annotation: image, class, area, whether a person is still to see it."""
    with open_project(path) as project:
        for image in project.images:
            mpp = image.server.mpp
            for annotation in image.annotations():
                area = annotation.geometry.area
                shown = f"{area * mpp.x * mpp.y / 1e6:.3f} mm²" if mpp else f"{area:,.0f} px²"
                origin = annotation.metadata.get("qpannot.method", "drawn by a person")
                print(image.name, annotation.class_name, shown, origin, sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
