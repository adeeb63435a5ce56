"""Measurements as HTML and JSON. May import `training` and the rooms below it."""
