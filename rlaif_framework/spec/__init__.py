"""Settings of a run: models, files and JSON Schema; may import `plugins` and the packages below it, but not torch."""
