"""What we want of a picture. Losses are minimized, and are written like the formula."""
