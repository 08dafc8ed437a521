"""Studies: arms, seeds and budgets, the runs of each, and what they prove."""
