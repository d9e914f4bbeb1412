"""Reports are pages of HTML that need nothing beside them; all look like ``page.html.j2``."""

from __future__ import annotations

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def page(name: str) -> Template:
    """Return a template of this room, such as ``report.html.j2``.

    It knows the filter ``png``: a picture's bytes as the address of an image in the page.
    """
    environment = Environment(
        loader=PackageLoader("qpannot", "bootstrap"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["png"] = lambda png: (
        "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    )
    return environment.get_template(name)
