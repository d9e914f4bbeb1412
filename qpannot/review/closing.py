"""What happens to a review when the window that it is in closes."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QMainWindow

from qpannot.errors import QpannotError
from qpannot.review.viewer import ReviewWindow


class Closing(QObject):  # type: ignore[misc]
    """Lets go of a review before its window closes.

    The person is not asked, for all is kept; but where something cannot be, the window may stay.

    Parameters
    ----------
    main
        The window; this is its child.
    """

    def __init__(self, main: QMainWindow, review: ReviewWindow) -> None:
        super().__init__(main)
        self._review = review
        self.problem: QpannotError | None = None
        """Why something could not be kept in the end."""
        main.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Qt's own: asked of each event of the window."""
        if event.type() != QEvent.Close:
            return False
        if event.spontaneous() and not self._may_close():
            event.ignore()
            return True
        try:
            self._review.close()
        except QpannotError as error:  # Qt would only print it
            self.problem = error
        return False

    def _may_close(self) -> bool:
        opened = self._review.opened
        if opened is None or not opened.is_changed:
            return True
        opened.keep_now()
        if opened.problem is None:
            return True
        lost = f"{opened.problem}\n\nIf the window closes now, what is not saved is lost."
        return self._review.ask(lost, "Close all the same")
