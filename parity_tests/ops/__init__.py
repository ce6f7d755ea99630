"""Every op, objective and rule against an oracle that was written without it."""
