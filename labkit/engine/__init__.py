"""How: a loss's gradient with respect to the pixels, and the one loop that follows it."""
