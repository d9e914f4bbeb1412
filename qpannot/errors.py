"""Exceptions that carry data, say where the trouble is, and end with what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class QpannotError(Exception):
    """Base of every error qpannot raises for a reason a person can act on.

    Parameters
    ----------
    message
        What is wrong, and where.
    hint
        What to do next. Shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:  # so that they come whole from other processes
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[QpannotError], args: tuple[object, ...]) -> QpannotError:
    return kind.__new__(kind, *args)


class UsageError(QpannotError):
    """A command was called in a way that cannot work (exit code 2)."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe does not validate.

    Parameters
    ----------
    problems
        Every problem found, each as ``"key.path: what is wrong"``.
    """

    def __init__(self, source: str, problems: Sequence[str], *, hint: str | None = None) -> None:
        self.source = source
        self.problems = tuple(problems)
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(f"The recipe {source} cannot be used:{lines}", hint=hint)


class SettingError(RecipeError):
    """What ``--set`` says of a recipe cannot be.

    Parameters
    ----------
    problems
        Every problem found, each as ``"key=value: what is wrong"``.
    """

    def __init__(self, problems: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__("--set", problems)
        self.message = "\n".join(f"--set {problem}" for problem in self.problems)
        self.hint = hint


class SlideError(QpannotError):
    """A slide cannot be opened or read."""

    def __init__(self, path: Path | str, reason: str, *, hint: str | None = None) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}", hint=hint)


class MissingSlideError(SlideError):
    """The file of a slide is not where it was."""


class MissingMppError(SlideError):
    """Nothing says how large a pixel of the slide is."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            path,
            "neither the project nor the file says how many micrometres a pixel is wide (mpp).",
            hint="Set the pixel size in QuPath (Image tab, double-click 'Pixel width'), "
            "or pass --mpp, for example --mpp 0.25 for a 40x scan.",
        )


class MissingWeightsError(QpannotError):
    """Published weights of a network are neither here nor to be had.

    Parameters
    ----------
    network
        Whose they are.
    trouble
        Why they could not be fetched.
    url
        Where a person finds them.
    setting
        Key of the recipe that takes a file instead.
    """

    def __init__(self, network: str, trouble: str, *, url: str, setting: str) -> None:
        self.network = network
        self.trouble = trouble
        self.url = url
        self.setting = setting
        super().__init__(
            f"The ImageNet weights of {network} are not on this machine, and {trouble}.",
            hint=f"Download {url} where there is a network and set {setting} to that file, or "
            f"begin from nothing with --set {setting}=null.",
        )


class ProjectError(QpannotError):
    """A QuPath project, or a file in it, cannot be read or written."""

    def __init__(self, path: Path | str, reason: str, *, hint: str | None = None) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}", hint=hint)


class FormatError(ProjectError):
    """Bytes that are not what the format promises.

    Parameters
    ----------
    offset
        Where in the file, in bytes, if known.
    """

    def __init__(
        self, path: Path | str, reason: str, *, offset: int | None = None, hint: str | None = None
    ) -> None:
        self.offset = offset
        at = "" if offset is None else f" (at byte {offset:,})"
        super().__init__(path, reason + at, hint=hint)


class ReadOnlyError(ProjectError):
    """A write was asked of a project opened for reading."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            path, "the project is open for reading only.", hint='Open it with mode="r+" to write.'
        )


class LockedError(ProjectError):
    """Another process holds the project."""


class ConcurrentChangeError(ProjectError):
    """An object was changed by someone else between our read and our write."""
