from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from qpannot.bootstrap.evaluating.seen import keep_seen
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.refinement.alone import slides_fitted
from qpannot.models import load_bundle
from qpannot.sampling import Part


def test_slides_that_taught_the_model_before_count_as_fitted_to(
    trained_study: Any, tmp_path: Path
) -> None:
    """As of ``train --from``: the card is of the last training, the record beside it of both."""
    ledger = Ledger(trained_study.project)
    model = tmp_path / "second" / "model"
    shutil.copytree(ledger.model_folder("round-002"), model)
    bundle = load_bundle(model)
    fitted = set(bundle.card.slides) - set(bundle.card.chosen_by)
    with trained_study.open() as project:
        images = project.images
        assert slides_fitted(bundle, ledger.parts(), ledger, images) == fitted
        names = {image.id: image.name for image in images}
        (new,) = (key for key, name in names.items() if name == "h.tif")
        assert new not in bundle.card.slides
        own = dict.fromkeys(fitted, Part.TRAIN) | dict.fromkeys(
            bundle.card.chosen_by, Part.VALIDATION
        )
        before = {new: Part.TRAIN, **dict.fromkeys(bundle.card.chosen_by, Part.TRAIN)}
        keep_seen(model.parent, own, names, before)
        assert slides_fitted(bundle, ledger.parts(), ledger, images) == {*bundle.card.slides, new}
    assert slides_fitted(None, ledger.parts(), ledger, images) == frozenset()
