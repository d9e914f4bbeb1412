"""``python -m qpannot``."""

from qpannot.cli import main

main()
