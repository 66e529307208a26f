"""The one error of this package: a refusal or a failure a person can act on.

It has the shape of the project's error root, and is a class of its own because this package imports nothing of ours.
"""

from __future__ import annotations


class SandboxError(Exception):
    """A session cannot be isolated as demanded, or did not behave; nothing ran weaker instead.

    Args:
        code: stable name of the refusal: ``spec``, ``source``, ``tier``, ``layer``, ``start``, ``canary``,
            ``kill`` or ``left``.
        template: English sentence with ``{name}`` places.
        hint: what to do about it, same form.
        params: values for the places in both. Never row values.
    """

    exit_code = 5

    def __init__(self, template: str, *, code: str, hint: str = "", **params: object) -> None:
        self.template = template
        self.hint_template = hint
        self.code = code
        self.params = params
        super().__init__(template)

    @property
    def message(self) -> str:
        """The English sentence with its values."""
        return self.template.format(**self.params) if self.params else self.template

    @property
    def hint(self) -> str:
        """The English hint with its values; empty where there is none."""
        return self.hint_template.format(**self.params) if self.params else self.hint_template

    def __str__(self) -> str:
        return self.message
