"""Where an owner's rows come from: files, a folder of files, databases; each brought to a file that DuckDB reads.

>>> from enterprise_node.sources import locate, stage
>>> place, reading = locate("passes.sqlite", table="passes")
>>> stage(place, reading, private_folder).file
"""

from enterprise_node.sources.credential import credential_reference, read_credential
from enterprise_node.sources.errors import (
    SourceCredentialsError,
    SourceQueryError,
    SourceSlowError,
    SourceUnavailableError,
)
from enterprise_node.sources.folder import FILES_FOLDER, MAX_FILE_BYTES, MAX_FILES, MAX_FOLDER_BYTES, FileMark
from enterprise_node.sources.locating import locate
from enterprise_node.sources.staging import Staged, stage

__all__ = [
    "FILES_FOLDER",
    "MAX_FILES",
    "MAX_FILE_BYTES",
    "MAX_FOLDER_BYTES",
    "FileMark",
    "SourceCredentialsError",
    "SourceQueryError",
    "SourceSlowError",
    "SourceUnavailableError",
    "Staged",
    "credential_reference",
    "locate",
    "read_credential",
    "stage",
]
