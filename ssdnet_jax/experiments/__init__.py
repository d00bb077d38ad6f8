"""Labelled datasets scored by methods, corruptions and variants."""
