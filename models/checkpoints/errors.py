"""The one error of a checkpoint that cannot be read or written."""


RESTORE_FILES = "restore the files or choose another step"


class CheckpointError(ValueError):
    """Names the file or leaf, the rule it breaks and the fix, in one sentence."""

    def __init__(self, where: object, rule: str, fix: str) -> None:
        super().__init__(f"{where}: {rule}; {fix}.")
