"""The two ways in which a run ends without a result: the user's input, or the federation itself."""


class InputError(ValueError):
    """Bad input or configuration: one line that names the key or file and the mend (exit code 2)."""


class FederationError(RuntimeError):
    """The federation could not finish; the message names the last good checkpoint (exit code 3)."""


class DivergedError(FederationError):
    """The weights are not finite any more; going on from the checkpoint would only repeat it."""
