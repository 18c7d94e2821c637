"""How a notebook speaks: pictures, plots, claims, widgets."""
