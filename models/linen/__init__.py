"""The Flax Linen twin. `models.linen.backend.BACKEND` is what the rest of the project uses."""
