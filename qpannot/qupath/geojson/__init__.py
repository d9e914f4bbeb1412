"""GeoJSON in QuPath's dialect, both ways."""

from qpannot.qupath.geojson.reading import Geojson, read_geojson
from qpannot.qupath.geojson.writing import feature, to_geojson, write_geojson

__all__ = ["Geojson", "feature", "read_geojson", "to_geojson", "write_geojson"]
