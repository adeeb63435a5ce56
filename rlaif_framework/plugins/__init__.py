"""Plugins, their components and discovery; may import `contracts` and the packages below it, but not torch."""
