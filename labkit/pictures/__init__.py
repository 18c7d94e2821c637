"""Pictures: read, written, resized, colored, masked, as films."""
