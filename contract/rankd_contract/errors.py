"""Everything the contract can object to.

ContractError
  + YamlError            a file that people write is no YAML, or more than is read of it
  + SchemaError          the schema file itself is wrong
  + ValueTypeError       a raw value does not fit its field
  + SchemaMismatch       two sides speak of different schemas
  + CorruptBundle        a bundle's files are not what its manifest says
    - UnsupportedFormat  written by a version this code does not know
"""

from __future__ import annotations

__all__ = [
    "ContractError",
    "CorruptBundle",
    "SchemaError",
    "SchemaMismatch",
    "UnsupportedFormat",
    "ValueTypeError",
    "YamlError",
]


class ContractError(Exception):
    """Base of every error raised by this package."""


class YamlError(ContractError):
    """A file is no YAML, or holds more than is read of it; the message is one line."""


class SchemaError(ContractError):
    """The schema file is wrong; the message names the place, the value and what was expected.

    Attributes:
        key: of the mapping at that place, where it is the key that is wrong.
    """

    def __init__(self, message: str, *, key: object = None) -> None:
        super().__init__(message)
        self.key = key


class ValueTypeError(ContractError):
    """A raw value does not fit its field.

    Attributes:
        field: name of the field.
        row: index of the first offending row.
        expected: what would have been accepted, in words.
        got: what it is in words; a type or a size, never the value itself.
        file: where the column was read from; empty for what came with a request.
    """

    def __init__(self, field: str, row: int, expected: str, got: str, file: str = "") -> None:
        """Keep the place apart from the message: a surface reports the place without echoing the value."""
        at = f"{file}: " if file else ""
        super().__init__(f"{at}field '{field}', row {row}: expected {expected}, got {got}")
        self.field = field
        self.row = row
        self.expected = expected
        self.got = got
        self.file = file

    def from_row(self, first: int) -> ValueTypeError:
        """Return the same error with rows counted from `first`, for who reads a long column in batches."""
        return ValueTypeError(self.field, first + self.row, self.expected, self.got, self.file)

    def in_file(self, file: str) -> ValueTypeError:
        """Return the same error with the file named, for who reads one."""
        return ValueTypeError(self.field, self.row, self.expected, self.got, file)


class SchemaMismatch(ContractError):
    """Rows, bundles or columns belong to another schema than the one in use."""


class CorruptBundle(ContractError):
    """A bundle is incomplete, altered or not a bundle at all."""


class UnsupportedFormat(CorruptBundle):
    """A bundle or schema was written in a format this version does not read."""
