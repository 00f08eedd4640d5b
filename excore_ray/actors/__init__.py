"""Thin shells that run the core's machines as Ray actors and carry their messages."""
