"""Files to arrays and back. Knows no model."""
