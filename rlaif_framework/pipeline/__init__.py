"""Turn a spec into artefacts, stage by stage. May import `report` and the rooms below it. Independent of algorithms."""
