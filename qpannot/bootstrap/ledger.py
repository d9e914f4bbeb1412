"""The record of rounds: plain JSON files in the project's ``qpannot`` folder.

Deleting that folder loses history, never annotations: the state of a slide can be told from its
annotations alone (``bootstrap.states``).

    qpannot/recipe.json          the recipe last used on the whole project
    qpannot/rounds/001.json      a round: its method, its recipe, when it ran
    qpannot/images/<id>.json     an image: its proposals as they were made, who said what of it,
                                 what its correction cost
    qpannot/readings/<id>/       its outlines as a reader left them, to compare the next's with
    qpannot/parts.json           which reviewed slides teach, choose the model, and judge it
    qpannot/models/round-002/    the model of a round, with the curves of its training
    qpannot/heatmaps/round-002/  what that model predicts, ``<id>.ome.tif``
    qpannot/patches/             the labelled patches of reviewed slides
    qpannot/whole/               reviewed slides, small as a whole, for a refinement network
    qpannot/review/              what was painted in napari and is not saved yet
    qpannot/reports/             what a person reads of each round
    qpannot/mirrored.json        the states as written into the metadata of images
    qpannot/heatmaps.json        which heatmaps the scripts inside QuPath show
    qpannot/scripts/             what these scripts share
    qpannot/snapshots/           files of the project as they were before each write

The refinement network of a round is a model of its own, ``round-002-refinement``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qpannot.bootstrap.corrections import Correction
from qpannot.bootstrap.image_record import FORMAT, ImageRecord
from qpannot.bootstrap.records import Choice, Judgement, RefinementRecord, TrainingRecord
from qpannot.errors import FormatError, ProjectError, UsageError
from qpannot.qupath.files import HOUSE, ProjectFiles, write_atomically
from qpannot.qupath.protocol import Project
from qpannot.recipe import Recipe, load_recipe

_Record = TypeVar("_Record", bound=BaseModel)


class MirroredStates(BaseModel):
    """The states we wrote into the metadata of images, by image ID.

    ``before`` has those they replace, until these are seen to be written.
    """

    format: int = FORMAT
    states: dict[str, str | None] = Field(default_factory=dict)
    before: dict[str, str | None] = Field(default_factory=dict)


class RoundRecord(BaseModel):
    """All the ledger knows of one round.

    Parameters
    ----------
    finished
        When it was last worked on.
    is_complete
        Whether a round with a network came to its end.
    training, judgement
        Of a round with a network, as far as it came.
    refinement
        What came of its refinement stage; ``None`` where the recipe asks for none.
    corrections
        What people had changed of earlier proposals when the round began, by image ID.
    chosen
        The slides it proposed for and why, in their order.
    """

    model_config = ConfigDict(extra="allow")

    format: int = FORMAT
    number: int
    method: str
    started: str
    finished: str | None = None
    qpannot: str
    recipe: dict[str, Any]
    proposed: list[str] = Field(default_factory=list)
    failed: dict[str, str] = Field(default_factory=dict)
    is_complete: bool = False
    training: TrainingRecord | None = None
    judgement: Judgement | None = None
    refinement: RefinementRecord | None = None
    corrections: dict[str, Correction] = Field(default_factory=dict)
    chosen: list[Choice] = Field(default_factory=list)

    @property
    def is_broken_off(self) -> bool:
        """Whether this is a round with a network that did not come to its end."""
        return self.number > 1 and not self.is_complete


class _Parts(BaseModel):
    format: int = FORMAT
    parts: dict[str, str] = Field(default_factory=dict)


class Ledger:
    """The ledger of one project.

    Parameters
    ----------
    folder
        The project's folder. Nothing is made there before something is recorded.
    """

    def __init__(self, folder: Path) -> None:
        self.house = folder / HOUSE
        self._files = ProjectFiles(folder)
        self._mirrored: MirroredStates | None = None

    @classmethod
    def of(cls, project: Project) -> Ledger:
        """Return the ledger of a project."""
        return cls(project.folder)

    def image(self, image_id: str, name: str) -> ImageRecord:
        """Return what is recorded of an image; an empty record where nothing is."""
        found = self._read(self._image_path(image_id), ImageRecord)
        found = found or ImageRecord(id=image_id, name=name)
        mirrored = self._mirrored_states()
        found.mirrored = mirrored.states.get(image_id)
        found.mirrored_before = mirrored.before.get(image_id)
        return found

    def _mirrored_states(self) -> MirroredStates:
        if self._mirrored is None:
            found = self._read(self.house / "mirrored.json", MirroredStates)
            self._mirrored = found or MirroredStates()
        return self._mirrored

    def save_mirrored(
        self, states: Mapping[str, str | None], *, before: Mapping[str, str | None]
    ) -> None:
        """Record which states are written into the metadata of images, by image ID.

        Parameters
        ----------
        before
            The states these replace; empty once they are written.
        """
        with self._files.locked():
            self._mirrored = None  # another process may have written since
            known = self._mirrored_states()
            kept = {key: value for key, value in known.before.items() if key not in states}
            self._mirrored = MirroredStates(
                states={**known.states, **states}, before={**kept, **before}
            )
            self._write(self.house / "mirrored.json", self._mirrored)

    def round(self, number: int) -> RoundRecord | None:
        """Return what is recorded of a round."""
        return self._read(self._round_path(number), RoundRecord)

    @property
    def recipe_path(self) -> Path:
        """Where the recipe last used on the whole project is, once there was one."""
        return self.house / "recipe.json"

    @property
    def journals(self) -> Path:
        """The folder of what was painted in reviews and is not saved yet."""
        return self.house / "review"

    def recipe(self) -> Recipe | None:
        """Return the recipe last used on the whole project."""
        if not self.recipe_path.is_file():
            return None
        try:
            return load_recipe(self.recipe_path)
        except UsageError as error:
            hint = "Move the file away, then name the recipe again: qpannot bootstrap -r RECIPE"
            raise ProjectError(
                self.recipe_path, "the recipe that the project keeps cannot be used.", hint=hint
            ) from error

    def save_recipe(self, recipe: Recipe) -> None:
        """Record the recipe used on the whole project: every value, whatever it extended."""
        values = {"extends": None, **recipe.model_dump(mode="json")}
        data = (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()
        with self._files.locked():
            if not self.recipe_path.is_file() or self.recipe_path.read_bytes() != data:
                write_atomically(self.recipe_path, data)

    def rounds(self) -> list[RoundRecord]:
        """Return every round, first to last."""
        paths = sorted((self.house / "rounds").glob("*.json"))
        return [record for path in paths if (record := self._read(path, RoundRecord))]

    def parts(self) -> dict[str, str]:
        """Return what each slide that was ever reviewed is for (`sampling.Part`), by image ID.

        Where the file is gone, rounds tell of those they trained on: a slide that judged a model
        must not teach the next.
        """
        if found := self._read(self.house / "parts.json", _Parts):
            return found.parts
        trained = [record.training for record in self.rounds() if record.training]
        return {key: part for training in trained for key, part in training.parts.items()}

    def save_parts(self, parts: Mapping[str, str]) -> None:
        """Record what slides are for; those of other slides are kept."""
        with self._files.locked():
            known = {**self.parts(), **{key: str(part) for key, part in parts.items()}}
            self._write(self.house / "parts.json", _Parts(parts=known))

    def kept_model(self) -> str | None:
        """Return what the model is called that the last judged round kept, if it is there still."""
        judged = [record.judgement for record in self.rounds() if record.judgement]
        return judged[-1].kept if judged and self.has_model(judged[-1].kept) else None

    def kept_refinement(self) -> str | None:
        """Return what refines the kept model's heatmaps, if something does and is there still."""
        judged = [record for record in self.rounds() if record.judgement]
        last = judged[-1] if judged else None
        if last is None or last.judgement is None or last.refinement is None:
            return None
        training, kept = last.refinement.training, last.refinement.kept
        is_of_kept = training is not None and training.patch_model == last.judgement.kept
        return kept if kept and is_of_kept and self.has_model(kept) else None

    def learned(self, recipe: Recipe) -> dict[str, str]:
        """Return what was known of the slides the last training saw (`states.key_of`), by ID.

        Nothing where its model is gone, or where the recipe tells other classes apart by now.
        """
        trained = [record for record in self.rounds() if record.training]
        if not trained or (trained[-1].judgement and self.kept_model() is None):
            return {}
        last = trained[-1]
        labels = last.recipe["labels"]
        before = {labels["rest"], *labels["classes"]}
        is_same = before == {recipe.labels.rest, *recipe.labels.classes}
        return last.training.slides if last.training and is_same else {}

    def has_model(self, name: str) -> bool:
        """Tell whether the bundle of a model is there."""
        return self.model_folder(name).is_dir()

    def model_folder(self, name: str) -> Path:
        """Return where the bundle of a model is."""
        return self.house / "models" / name / "model"

    def heatmap_folder(self, name: str) -> Path:
        """Return where the heatmaps of a model are."""
        return self.house / "heatmaps" / name

    def edit_image(
        self, image_id: str, name: str, change: Callable[[ImageRecord], None]
    ) -> ImageRecord:
        """Change what is recorded of an image, whatever another process recorded meanwhile."""
        with self._files.locked():
            record = self.image(image_id, name)
            change(record)
            self._write(self._image_path(image_id), record)
        return record

    def save_round(self, record: RoundRecord) -> None:
        """Record what is known of a round."""
        self._write(self._round_path(record.number), record)

    def _image_path(self, image_id: str) -> Path:
        return self.house / "images" / f"{image_id}.json"

    def _round_path(self, number: int) -> Path:
        return self.house / "rounds" / f"{number:03d}.json"

    def _read(self, path: Path, kind: type[_Record]) -> _Record | None:
        try:
            return kind.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ProjectError(path, f"cannot be read ({error.strerror or error}).") from error
        except ValidationError as error:
            raise FormatError(
                path,
                f"not a record of qpannot's ledger ({error.error_count()} problems, the first: "
                f"{error.errors()[0]['msg']}).",
                hint="Move the file away: that loses its history, and no annotation.",
            ) from None

    def _write(self, path: Path, record: BaseModel) -> None:
        with self._files.locked():
            # outlines with each number on a line of its own take 2.5 times the bytes
            indent = None if isinstance(record, ImageRecord) else 1
            write_atomically(path, (record.model_dump_json(indent=indent) + "\n").encode())
