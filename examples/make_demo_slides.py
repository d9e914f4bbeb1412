"""Make synthetic slides with known tumours, for trying a method where the truth is known.

python examples/make_demo_slides.py FOLDER 4
"""

import sys
from pathlib import Path

from qpannot.demo import make_demo_slides


def main(folder: str, count: str = "4") -> None:
    """Make slides and print what is known of them."""
    for slide in make_demo_slides(Path(folder), count=int(count)):
        print(slide.name, slide.patient, slide.grade, slide.mask_path, sep="\t")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
