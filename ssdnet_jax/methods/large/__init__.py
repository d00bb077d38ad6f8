"""Images too large to be processed at once, fitted by crops and scored by tiles."""
