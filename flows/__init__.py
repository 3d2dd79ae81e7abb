"""When and where a stage runs: the DVC graph as a Prefect flow, slots, tracking, and the `roads` command line."""
