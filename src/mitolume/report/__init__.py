"""The pages of runs and studies, and results as text."""
