"""Studies: a paper's plan in one YAML, its tables with the published numbers beside, its claim and whether it held."""
