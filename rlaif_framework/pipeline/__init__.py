"""From a spec to artefacts, stage by stage. Knows no algorithm: may import `report` and the rooms below it, not `rl`."""
