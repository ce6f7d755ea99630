"""Checkpoints of both twins in every layout of the migration: saved whole, restored exactly, cross-loaded."""

from .conventions import Convention, load_maxtext, maxtext_convention, maxtext_name
from .errors import CheckpointError
from .huggingface import load_hf, save_hf
from .layouts import Layout, detect, from_canonical, to_canonical
from .native import step_of
from .scan import rescan
from .store import Restored, load, read_manifest, read_tree, restore, restore_report, save, saved_steps

__all__ = [
    "CheckpointError", "Convention", "Layout", "Restored", "detect", "from_canonical", "load", "load_hf",
    "load_maxtext", "maxtext_convention", "maxtext_name", "read_manifest", "read_tree", "rescan", "restore",
    "restore_report", "save", "save_hf", "saved_steps", "step_of", "to_canonical",
]
