"""Between a project and GeoJSON files: every image's objects out, and files in."""

from qpannot.exchange.exporting import Exported, ExportResult, export_geojson
from qpannot.exchange.importing import Conflict, Imported, ImportResult, import_geojson
from qpannot.exchange.naming import find_geojson, name_files

__all__ = [
    "Conflict",
    "ExportResult",
    "Exported",
    "ImportResult",
    "Imported",
    "export_geojson",
    "find_geojson",
    "import_geojson",
    "name_files",
]
