"""The built-in plugins of rlaif-framework; each module registers its components and is a plugin like any other."""
