"""The table of the families: what stands behind each of them, for both twins, with the worst figure of each kind."""
