"""The one exception for what a user can mend."""


class InputError(ValueError):
    """A mistake in what the user gave (file, option, shape, value). Its text is one line and names the remedy."""
