"""Build components, check them before anything is computed, and identify them. May import `models` and below."""
