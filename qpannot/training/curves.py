"""The curves of a training: a table with a row for each epoch, and TensorBoard's files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from qpannot.errors import QpannotError
from qpannot.qupath.files import write_atomically

Row = Mapping[str, float]
"""One epoch: ``epoch`` from 1, ``seconds``, ``train.loss``, ``validation.dice.Tumor`` and so on."""


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
        try:
            self._writer = SummaryWriter(str(folder), purge_step=first)
        except OSError as error:
            raise self._failure(error) from error

    def add(self, row: Row) -> None:
        """Write an epoch.

        Raises
        ------
        QpannotError
            It cannot be written.
        """
        try:
            for key, value in row.items():
                part, _, metric = key.partition(".")
                if metric:
                    self._writer.add_scalar(f"{metric}/{part}", value, int(row["epoch"]))
            self._writer.flush()
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _failure(self, error: OSError) -> QpannotError:
        return QpannotError(
            f"{self._folder} cannot be written: {error.strerror or error}.",
            hint="Check free space and permissions of the folder, then run the command again.",
        )
