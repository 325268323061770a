"""The HTTP face. `proxy` is the way of one call from top to bottom; everything else stands around it."""
