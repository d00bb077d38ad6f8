"""Everything that reads pixels or weights: decoding, layouts, weights, synthetic textures."""
