"""The one error of a wrong setting: which field, which value, which rule, how to fix it."""


class ConfigError(ValueError):
    """A setting that breaks a rule. The message is one sentence that a user can act on."""

    def __init__(self, field: str, value: object, rule: str, fix: str) -> None:
        super().__init__(f"{field} = {value!r}: {rule}; {fix}.")
        self.field = field
