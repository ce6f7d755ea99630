"""Claims about the prover: it is never wrong, it proves honest rewrites, and it says where two programs part."""
