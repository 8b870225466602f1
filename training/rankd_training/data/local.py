"""Data sets whose files the user brings: found in the data folder, never downloaded, never written beside.

Their terms or their hosts do not let a program fetch them. A source says which files it takes and under which
folder names; its digest is that of the files found, so that other files are prepared anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from rankd_training.data.prepared import sha256_of
from rankd_training.errors import MalformedSource, SourceAbsent

__all__ = ["LocalSource"]


@dataclass(frozen=True, slots=True)
class LocalSource:
    """Files of one data set in the data folder.

    Attributes:
        folders: names the folder may have; the first is the one recommended.
        layouts: sets of file names, any one of which is enough; the first is the one recommended.
        obtain: where to get the files, in words.
        tables: reads a folder -> tables by name, `examples` among them; may raise MalformedSource.
    """

    folders: tuple[str, ...]
    layouts: tuple[tuple[str, ...], ...]
    obtain: str
    tables: Callable[[Path], Mapping[str, pa.Table]]

    def find(self, name: str, root: Path) -> tuple[Path, ...]:
        """Return the files of the first layout that is complete. Raises SourceAbsent."""
        for folder in self.folders:
            for layout in self.layouts:
                files = tuple(root / folder / file for file in layout)
                if all(file.is_file() for file in files):
                    return files
        wanted = ", or ".join(" and ".join(layout) for layout in self.layouts)
        raise SourceAbsent(name, root / self.folders[0], wanted, self.obtain)

    def read(self, files: tuple[Path, ...]) -> Mapping[str, pa.Table]:
        """Read what `find` found. Raises MalformedSource."""
        folder = files[0].parent
        try:
            return self.tables(folder)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise MalformedSource(str(folder), f"not in the expected form: {error}") from error


def combined_digest(files: tuple[Path, ...]) -> str:
    """One SHA-256 over names and contents."""
    listing = "".join(f"{sha256_of(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()
