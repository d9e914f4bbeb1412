"""The Java objects that a ``data.qpdata`` file consists of, as a list, and back to bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from jpype import JClass, JProxy

from qpannot.qupath.paquo.regions import java_bytes

END: Final = "EOF"
"""The string that a file ends with."""

HIERARCHY: Final = "qupath.lib.objects.hierarchy.PathObjectHierarchy"


def read_contents(data: bytes) -> tuple[str, list[Any]]:
    """Return the line that a file begins with, and the objects in it up to the end mark."""
    stream = JClass("qupath.lib.io.PathIO").createObjectInputStream(
        JClass("java.io.ByteArrayInputStream")(java_bytes(data))
    )
    line = str(stream.readUTF())
    contents: list[Any] = []

    def read_to_end() -> None:
        while not (contents and is_a(contents[-1], "java.lang.String") and contents[-1] == END):
            contents.append(stream.readObject())

    # a stream looks for classes where its caller's come from: it must be called out of Java
    called = JProxy("java.lang.Runnable", dict={"run": read_to_end})
    task = JClass("java.util.concurrent.FutureTask")(called, None)
    task.run()
    task.get()
    return line, contents


def write_contents(version_line: str, contents: Sequence[Any]) -> bytes:
    """Return the bytes of a file that begins with this line and holds these objects."""
    output = JClass("java.io.ByteArrayOutputStream")()
    stream = JClass("java.io.ObjectOutputStream")(output)
    stream.writeUTF(version_line)
    for each in contents:
        stream.writeObject(each)
    stream.close()
    return bytes(output.toByteArray())


def root_of(contents: Sequence[Any]) -> Any:
    """Return the root of the hierarchy among the objects of a file."""
    # QuPath goes by the last one
    return [each for each in contents if is_a(each, HIERARCHY)][-1].getRootObject()


def is_a(each: Any, class_name: str) -> bool:
    """Tell whether an object is of a Java class; ``None`` is of none."""
    return isinstance(each, JClass(class_name))
