"""Turn a spec into artefacts, stage by stage. May import `report` and the packages below it; independent of algorithms.

`compose` lists the steps of a spec, `keys` computes the keys of their artefacts, `engine` runs them, and `stages` has
the work of each stage.
"""
