"""The report of one study, from the artifacts of its cells."""
