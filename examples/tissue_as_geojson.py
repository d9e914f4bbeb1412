"""Outline the tissue of a slide and write it as GeoJSON, without any project.

python examples/tissue_as_geojson.py slide.svs 200 > tissue.geojson
"""

import json
import sys

import shapely

from qpannot import detect_tissue, load_recipe, open_slide


def main(path: str, threshold: str = "200") -> None:
    """Write the outlines in full-resolution pixels, as QuPath reads them."""
    with open_slide(path) as slide:
        recipe = load_recipe("h2gnet", [f"tissue.threshold={threshold}"])
        outlines = detect_tissue(slide, recipe.tissue)
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(outline), "properties": {}}
        for outline in outlines
    ]
    json.dump({"type": "FeatureCollection", "features": features}, sys.stdout)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
