"""The one exception for a user's mistake: one sentence that says what, where, and what to do."""


class UserError(Exception):
    """Shown as it stands, without a traceback; the process ends with exit code 2."""
