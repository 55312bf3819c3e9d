"""The one exception for what a user can mend."""


class InputError(ValueError):
    """A mistake in what the user gave (file, option, shape, value). Its text is one line and names the remedy.

    Attributes:
        sample: which sample of a batch is wrong, counted from its first; None if it is none of them. Whoever knows the
            data set tells by it the file and record.
    """

    def __init__(self, message: str, sample: int | None = None) -> None:
        super().__init__(message)
        self.sample = sample
