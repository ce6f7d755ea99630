"""The built-in subject: the compact framework's Linen and NNX twins. The one place that imports both."""

from .subject import SUBJECT

__all__ = ["SUBJECT"]
