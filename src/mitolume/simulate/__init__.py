"""Cells, optics and noise with exact ground truth. Knows no model and no file."""
