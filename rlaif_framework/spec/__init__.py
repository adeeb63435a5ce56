"""The settings of a run: pydantic models, files and JSON Schema. May import `plugins` and below; no torch.

`model` defines the keys of a spec. The settings of components are defined by their plugins.
"""
