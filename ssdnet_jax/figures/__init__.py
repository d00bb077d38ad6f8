"""Pictures of results, and what drawings have in common."""
