"""Frozen networks with named layers, and where trained ones come from."""
