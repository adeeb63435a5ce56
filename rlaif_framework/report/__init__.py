"""Measurements as HTML and JSON; may import `training` and the packages below it."""
