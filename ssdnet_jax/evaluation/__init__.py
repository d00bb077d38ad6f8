"""Metrics: maps against masks."""
