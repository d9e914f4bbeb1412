"""``data.qpdata``, the annotations of an image, read and edited without Java."""

from qpannot.qupath.qpdata.datafile import IMAGE_TYPES, QpData
from qpannot.qupath.qpdata.storable import all_as_stored, as_stored

__all__ = ["IMAGE_TYPES", "QpData", "all_as_stored", "as_stored"]
