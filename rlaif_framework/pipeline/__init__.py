"""Turn a spec into artefacts, stage by stage; may import `report` and the packages below it, but not `rl`."""
