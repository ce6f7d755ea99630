"""The Flax NNX twin. Its public face is `models.nnx.backend.BACKEND`; it never imports the other twin or Linen."""
