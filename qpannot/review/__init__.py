"""The correction round: what a person paints over a slide becomes its annotations.

``session`` and what lies below it know nothing of windows; the napari plugin is built upon them.
"""
