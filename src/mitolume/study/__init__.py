"""The recipe, its arms, the evidence, the report."""
