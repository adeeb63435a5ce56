"""The built-in plugins of rlaif-framework; each module registers its components and is a plugin like any other.

A new one goes into the folder of its kind, and its module into `rlaif_framework/plugins/builtins.py`.
"""
