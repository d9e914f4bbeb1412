"""What Java's exceptions mean, in words."""

from __future__ import annotations

from typing import Any, Final

# by the names of Java's classes, of which one that is derived comes first
_MEANINGS: Final = {
    "java.io.EOFException": "the file ends early",
    "java.io.StreamCorruptedException": "it is no QuPath data file, or damaged",
    "java.io.OptionalDataException": "it is damaged",
    "java.io.UTFDataFormatException": "it is damaged: a text in it is none",
    "java.lang.ClassNotFoundException": "it holds something that this QuPath does not know",
    "java.io.InvalidClassException": "it holds something that this QuPath does not read",
    "java.lang.OutOfMemoryError": "Java has not enough memory for it",
    "java.lang.StackOverflowError": "its objects are nested too deeply",
}


def said_by(error: BaseException) -> str:
    """Return what a Java exception says, or what first went wrong where others wrap it.

    A class name and no more, which is what many of Java's exceptions have to say, is told in words.
    """
    java: Any = root_cause(error)
    message = str(java.getMessage() or "").strip()
    found: Any = java.getClass()
    while found is not None:
        meaning = _MEANINGS.get(str(found.getName()))
        if meaning:
            return f"{meaning} ({message})" if message else meaning
        found = found.getSuperclass()
    kind = str(java.getClass().getSimpleName())
    return f"{message} ({kind})" if message else f"QuPath fails with {kind}"


def root_cause(error: BaseException) -> BaseException:
    """Return the exception that a Java exception has come of."""
    java: Any = error
    while (cause := java.getCause()) is not None:
        java = cause
    found: BaseException = java
    return found
