"""Build, check and identify components. May import `models` and below."""
