"""Projects read and written by QuPath itself, through paquo and its Java objects."""
