"""Figures as SVG: the same bytes for the same numbers."""
