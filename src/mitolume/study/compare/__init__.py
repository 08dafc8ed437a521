"""A study: arms, seeds and label budgets as runs, and what they prove."""
