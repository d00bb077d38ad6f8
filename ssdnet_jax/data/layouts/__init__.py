"""Layouts of labelled test sets, a file a kind: which image belongs to which label."""
