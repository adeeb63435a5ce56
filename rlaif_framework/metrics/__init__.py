"""Metrics computed from records alone; may import `assembly` and the packages below it, but not torch."""
