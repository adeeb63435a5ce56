"""Build, check and identify components; may import `models` and the packages below it."""
