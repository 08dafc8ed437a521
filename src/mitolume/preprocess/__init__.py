"""Arrays to arrays, with numpy only: sharpen, rescale, normalise. Knows no file and no model."""
