"""Errors a person can act on: what should be, what was found, what to do."""


class CollabDMError(ValueError):
    """Base of all errors that the package raises on purpose."""


class PlanError(CollabDMError):
    """The Plan, or a setting in it, cannot be carried out."""


class DocumentError(CollabDMError):
    """A file is not the document it should be."""


class DataError(CollabDMError):
    """A data set cannot be read, or does not fit the Plan."""


class ProbeError(CollabDMError):
    """This machine computes other numbers than the Plan's author did."""


class OutputError(CollabDMError):
    """A place cannot be written."""
