"""Everything that scores images, behind one protocol (`methods.base.Method`)."""
