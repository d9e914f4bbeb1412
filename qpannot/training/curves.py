"""The curves of a training: a table with a row for each epoch, and TensorBoard's files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from qpannot.errors import QpannotError
from qpannot.qupath.files import write_atomically

Row = Mapping[str, float]
"""One epoch: ``epoch`` from 1, ``seconds``, ``train.loss``, ``validation.dice.Tumor`` and so on."""


def best_of(rows: Sequence[Row]) -> Row | None:
    """Return the epoch of the lowest validation loss, the first of them."""
    return min(rows, key=lambda row: row["validation.loss"], default=None)


def write_curves(path: Path, rows: Sequence[Row]) -> None:
    """Write the curves as CSV, whole or not at all; what was not measured is blank.

    Raises
    ------
    ProjectError
        The file cannot be written.
    """
    fullest = max(rows, key=len, default={})  # its order is that of all
    columns = list(dict.fromkeys(key for row in (fullest, *rows) for key in row))
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, file.getvalue().encode())


class TensorBoard:
    """Writes the curves for TensorBoard: ``loss/train`` beside ``loss/validation``.

    Parameters
    ----------
    folder
        What ``tensorboard --logdir`` is given.
    first
        The epoch that comes first; what is there from it on, of a run that broke off, no longer
        counts.
    """

    def __init__(self, folder: Path, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        with self._told():
            self._writer = SummaryWriter(str(folder), purge_step=first)

    def add(self, row: Row) -> None:
        """Write an epoch.

        Raises
        ------
        QpannotError
            It cannot be written.
        """
        with self._told():
            for key, value in row.items():
                part, _, metric = key.partition(".")
                if metric:
                    self._writer.add_scalar(f"{metric}/{part}", value, int(row["epoch"]))
            self._writer.flush()

    def close(self) -> None:
        """Close the file.

        Raises
        ------
        QpannotError
            What was still to be written cannot be.
        """
        with self._told():
            self._writer.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise QpannotError(
                f"{self._folder} cannot be written: {error.strerror or error}.",
                hint="Check free space and permissions of the folder, then run the command again.",
            ) from error
