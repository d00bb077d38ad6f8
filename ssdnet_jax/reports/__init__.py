"""Pages, tables and figures of experiments."""
