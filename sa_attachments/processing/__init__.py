"""Processing: what is done with a new attachment before it is stored."""
