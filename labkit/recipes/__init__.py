"""The article's own systems, each a short recipe on the engine."""
