"""One run: its folder, its trainings, its scores, which model is kept, what to label next."""
