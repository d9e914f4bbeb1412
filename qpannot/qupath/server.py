"""What a project says of an image's pixels: QuPath's server builders and their metadata.

Source: QuPath 0.6 ``ImageServers`` (the kinds of builder), ``ImageServerMetadata``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import numpy as np
from numpy.typing import NDArray

from qpannot.geometry import Mpp, Region, Size, estimate_downsample

OPENSLIDE = "qupath.lib.images.servers.openslide.OpenslideServerBuilder"
BIOFORMATS = "qupath.lib.images.servers.bioformats.BioFormatsServerBuilder"

DAMAGED = "damaged"
"""The kind of a builder that lacks what its kind must have."""

_MICROMETRES = ("µm", "μm", "um")  # micro sign, Greek mu
_QUARTER_TURNS = {"ROTATE_NONE": 0, "ROTATE_90": 1, "ROTATE_180": 2, "ROTATE_270": 3}
_RGB_CHANNELS = (("Red", -65536), ("Green", -16711936), ("Blue", -16776961))


@dataclass(frozen=True)
class Rotation:
    """A clockwise rotation by quarter turns (QuPath ``RotatedImageServer``)."""

    quarter_turns: int


@dataclass(frozen=True)
class Crop:
    """A crop, in the pixels of what is cropped (QuPath ``CroppedImageServer``)."""

    region: Region


@dataclass(frozen=True)
class ServerInfo:
    """What a project entry says of its image, without opening the file.

    Parameters
    ----------
    uris
        Where the pixels come from, as QuPath spells them.
    provider
        The Java class that opens them, empty where QuPath chooses.
    args
        Arguments of that class, such as ``--no-crop``.
    size, mpp, magnification, is_rgb
        The image as it is shown, after ``transforms``; ``None`` where the project does not say.
        The resolution is what users correct in QuPath, so it goes before the file's own.
    transforms
        Rotations and crops from the file's frame to the shown one, in order.
    file_size
        The image before ``transforms``, as the project states it; what tells a file from another.
    unsupported
        The builder type of a transform whose pixels qpannot cannot make, or ``DAMAGED``, else
        ``None``.
    """

    uris: tuple[str, ...]
    provider: str = ""
    args: tuple[str, ...] = ()
    size: Size | None = None
    mpp: Mpp | None = None
    magnification: float | None = None
    is_rgb: bool | None = None
    transforms: tuple[Rotation | Crop, ...] = ()
    file_size: Size | None = None
    unsupported: str | None = None

    @property
    def crop_to_bounds(self) -> bool:
        """Whether QuPath crops the slide to OpenSlide's bounds."""
        return "--no-crop" not in self.args

    @property
    def series(self) -> int:
        """The image inside a multi-image file, as given to Bio-Formats."""
        for flag, value in zip(self.args, self.args[1:], strict=False):
            if flag in ("--series", "-s") and value.isdecimal():
                return int(value)
        return 0


def read_builder(builder: Mapping[str, Any]) -> ServerInfo:
    """Return what a ``serverBuilder`` of a project says.

    Parameters
    ----------
    builder
        The JSON object; unknown kinds are described as far as they can be.
    """
    try:
        return _read_builder(builder)
    except (KeyError, TypeError, ValueError):
        return ServerInfo(uris=tuple(_find_uris(builder)), unsupported=DAMAGED)


def _read_builder(builder: Mapping[str, Any]) -> ServerInfo:
    kind = str(builder.get("builderType", "uri"))
    inner = builder.get("builder")
    if isinstance(inner, Mapping):
        info = _transformed(_read_builder(inner), kind, builder)
    elif kind == "uri":
        info = ServerInfo(
            uris=(str(builder.get("uri", "")),),
            provider=str(builder.get("providerClassName", "")),
            args=tuple(str(arg) for arg in builder.get("args") or ()),
        )
        info = _with_rotation_argument(info)
    else:
        info = ServerInfo(uris=tuple(_find_uris(builder)), unsupported=kind)
    metadata = builder.get("metadata")
    info = _with_metadata(info, metadata) if isinstance(metadata, Mapping) else info
    return info if info.transforms else _replace(info, file_size=info.size)


def _with_rotation_argument(info: ServerInfo) -> ServerInfo:
    for flag, value in zip(info.args, info.args[1:], strict=False):
        if flag == "--rotate" and _QUARTER_TURNS.get(value):
            return _replace(info, transforms=(Rotation(_QUARTER_TURNS[value]),))
    return info


def _replace(info: ServerInfo, **changes: Any) -> ServerInfo:
    return ServerInfo(**{**info.__dict__, **changes})


def _transformed(info: ServerInfo, kind: str, builder: Mapping[str, Any]) -> ServerInfo:
    if kind == "pyramidize":
        return info
    if kind == "rotated":
        turns = _QUARTER_TURNS.get(str(builder.get("rotation", "ROTATE_NONE")), 0)
        info = _replace(info, transforms=(*info.transforms, Rotation(turns)))
        if turns % 2 and info.size:
            info = _replace(info, size=Size(info.size.height, info.size.width))
        if turns % 2 and info.mpp:
            info = _replace(info, mpp=Mpp(info.mpp.y, info.mpp.x))
        return info
    region = builder.get("region")
    if kind == "cropped" and isinstance(region, Mapping):
        x, y, width, height = (int(region[key]) for key in ("x", "y", "width", "height"))
        crop = Crop(Region(x, y, width, height))
        return _replace(info, transforms=(*info.transforms, crop), size=Size(width, height))
    return _replace(info, unsupported=info.unsupported or kind)


def _with_metadata(info: ServerInfo, metadata: Mapping[str, Any]) -> ServerInfo:
    changes: dict[str, Any] = {}
    if "width" in metadata and "height" in metadata:
        changes["size"] = Size(int(metadata["width"]), int(metadata["height"]))
    if "pixelCalibration" in metadata:
        changes["mpp"] = read_calibration(metadata["pixelCalibration"])
    magnification = metadata.get("magnification")
    if isinstance(magnification, (int, float)) and math.isfinite(magnification):
        changes["magnification"] = float(magnification)
    if "isRGB" in metadata:
        changes["is_rgb"] = bool(metadata["isRGB"])
    return _replace(info, **changes)


def read_calibration(calibration: Any) -> Mpp | None:
    """Return the resolution of a ``pixelCalibration``; ``None`` where it is in pixels."""
    try:
        sides = [calibration[key] for key in ("pixelWidth", "pixelHeight")]
        if any(side["unit"] not in _MICROMETRES for side in sides):
            return None
        return Mpp(*(float(side["value"]) for side in sides))
    except (KeyError, TypeError, ValueError):
        return None


def _find_uris(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        own = [value["uri"]] if isinstance(value.get("uri"), str) else []
        return own + [uri for item in value.values() for uri in _find_uris(item)]
    if isinstance(value, list):
        return [uri for item in value for uri in _find_uris(item)]
    return []


def replace_uris(builder: Any, new_by_old: Mapping[str, str]) -> Any:
    """Return a builder that reads its pixels from other places, all else kept."""
    if isinstance(builder, dict):
        return {
            key: new_by_old.get(value, value)
            if key == "uri" and isinstance(value, str)
            else replace_uris(value, new_by_old)
            for key, value in builder.items()
        }
    if isinstance(builder, list):
        return [replace_uris(item, new_by_old) for item in builder]
    return builder


def state_mpp(builder: Any, mpp: Mpp) -> Any:
    """Return a builder that states a pixel size, where it states none and has room for one."""
    metadata = builder.get("metadata") if isinstance(builder, dict) else None
    if not isinstance(metadata, dict):
        return builder
    calibration = metadata.get("pixelCalibration")
    if read_calibration(calibration):
        return builder
    known = calibration if isinstance(calibration, dict) else {}
    return {**builder, "metadata": {**metadata, "pixelCalibration": {**known, **_sides(mpp)}}}


@dataclass(frozen=True)
class ImageSource:
    """An image to be added to a project, described as QuPath's own reader would.

    Parameters
    ----------
    path
        The file.
    reader
        ``"openslide"`` or ``"bioformats"``: what QuPath should open it with.
    size
        Full-resolution pixels of QuPath's frame.
    level_sizes
        Of every level of the file, level 0 first, before any crop to bounds.
    uncropped_size
        Level 0 before the crop to bounds, where there is one.
    mpp, magnification
        ``None`` where unknown.
    tile_size
        The file's own, in pixels.
    args
        For QuPath's reader, such as ``--no-crop``.
    thumbnail
        RGB uint8, shape (height, width, 3), 1000 x 600 px at most by QuPath's convention.
    image_type
        QuPath's ``ImageType``, such as ``BRIGHTFIELD_H_E``. With ``UNSET`` QuPath asks or
        estimates when the image is first opened.
    metadata
        Of the entry: patient, grade and the like.
    identity
        What the files of one slide share, where a slide is several (DICOM's series).
    """

    path: Path
    reader: str
    size: Size
    level_sizes: Sequence[Size]
    uncropped_size: Size | None = None
    mpp: Mpp | None = None
    magnification: float | None = None
    tile_size: Size | None = None
    args: tuple[str, ...] = ()
    thumbnail: NDArray[np.uint8] | None = None
    image_type: str = "UNSET"
    metadata: Mapping[str, str] = field(default_factory=dict)
    identity: str | None = None


def build(source: ImageSource) -> dict[str, Any]:
    """Return the ``serverBuilder`` QuPath 0.6 writes for an 8-bit RGB image."""
    calibration = (
        _sides(source.mpp)
        if source.mpp
        else {key: {"value": 1.0, "unit": "px"} for key in ("pixelWidth", "pixelHeight")}
    )
    tile = source.tile_size or Size(256, 256)
    metadata: dict[str, Any] = {
        "name": source.path.name,
        "width": source.size.width,
        "height": source.size.height,
        "sizeZ": 1,
        "sizeT": 1,
        "channelType": "DEFAULT",
        "isRGB": True,
        "pixelType": "UINT8",
        "levels": _levels(source),
        "channels": [{"name": name, "color": color} for name, color in _RGB_CHANNELS],
        "pixelCalibration": {
            **calibration,
            "zSpacing": {"value": 1.0, "unit": "z-slice"},
            "timeUnit": "SECONDS",
            "timepoints": [],
        },
    }
    if source.magnification:
        metadata["magnification"] = float(source.magnification)
    metadata["preferredTileWidth"] = tile.width
    metadata["preferredTileHeight"] = tile.height
    args = list(source.args)
    if source.reader != "openslide" and "--series" not in args:
        args = ["--series", "0", *args]
    return {
        "builderType": "uri",
        "providerClassName": OPENSLIDE if source.reader == "openslide" else BIOFORMATS,
        "uri": uri_from_path(source.path),
        "args": args,
        "metadata": metadata,
    }


def _sides(mpp: Mpp) -> dict[str, Any]:
    sides = {"pixelWidth": float(mpp.x), "pixelHeight": float(mpp.y)}
    return {key: {"value": value, "unit": "µm"} for key, value in sides.items()}


def _levels(source: ImageSource) -> list[dict[str, Any]]:
    full = source.uncropped_size or source.size
    levels: list[dict[str, Any]] = []
    for level in source.level_sizes:
        downsample = estimate_downsample(full, level)
        if levels and downsample <= levels[-1]["downsample"]:
            break
        if full != source.size:
            level = Size(int(source.size.width / downsample), int(source.size.height / downsample))
        levels.append({"downsample": downsample, "width": level.width, "height": level.height})
    return levels


def uri_from_path(path: Path) -> str:
    """Return a file URI as Java's ``Path.toUri`` spells it."""
    return path.absolute().as_uri()


def path_from_uri(uri: str) -> Path | None:
    """Return the local path a URI stands for; ``None`` for anything but files.

    Java's ``file:/a``, ``file:///a``, network shares (``file://server/share``) and bare paths of
    old projects are understood.
    """
    if len(uri) > 2 and uri[1] == ":" and uri[2] in "\\/":
        return Path(uri)
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    if parts.scheme not in ("file", ""):
        return None
    if not parts.scheme:
        return Path(uri) if uri else None
    location = parts.path if not parts.netloc else f"//{parts.netloc}{parts.path}"
    if os.name == "nt":
        from urllib.request import url2pathname  # slow to import, and seldom of use

        return Path(url2pathname(location))
    return Path(os.fsdecode(unquote_to_bytes(location)))


def name_from_uri(uri: str) -> str:
    """Return the file name at the end of a URI, whichever system it was written on."""
    try:
        text = unquote(urlsplit(uri).path or uri)
    except ValueError:
        text = uri
    return PureWindowsPath(text).name if "\\" in text else PurePosixPath(text).name


def is_there(path: Path | None) -> bool:
    """Tell whether a file can be found; no, for names that no file could have."""
    try:
        return path is not None and path.exists()
    except OSError:
        return False
