"""Published files that the user brings -> a folder that `rankd train` takes as it is.

A format says which files it takes by their published names, streams its examples, and gives the tables of its
users and items where there are any. Files may be of any size: what is held is a piece of the examples and the
tables that are joined to them.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rankd_training.data.local import combined_digest
from rankd_training.data.prepared import RECORD_FILE, Provenance, Record, TableFile, sha256_of
from rankd_training.errors import ConversionRefused

__all__ = ["Files", "Format", "Role", "convert"]

SCHEMAS = Path(__file__).parent.parent / "schemas"
EXAMPLES, SCHEMA = "examples.parquet", "schema.yaml"

Files = Mapping[str, tuple[Path, ...]]
Batches = Iterator[pa.RecordBatch | pa.Table]


@dataclass(frozen=True, slots=True)
class Role:
    """A kind of file that a format takes: a pattern of its published names, and such a name."""

    pattern: str
    example: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class Format:
    """A published form of a data set.

    Attributes:
        name: what it is called; its schema is schemas/NAME.yaml.
        description: what it is and where it is published.
        roles: the files it takes.
        examples: streams the examples of some files; raises MalformedSource.
        entities: gives further tables by name, from the files and the examples as written.
        advice: what to add to `rankd train`.
        preparation: goes up whenever the same files give other tables.
    """

    name: str
    description: str
    roles: Mapping[str, Role]
    examples: Callable[[Files], Batches]
    entities: Callable[[Files, Path], Mapping[str, pa.Table]] = lambda files, examples: {}
    advice: str = ""
    preparation: int = 1

    @property
    def schema(self) -> Path:
        """The schema file that describes its columns."""
        return SCHEMAS / f"{self.name}.yaml"

    def assign(self, paths: Sequence[Path]) -> Files:
        """Tell files (and those of folders) apart by their names. Raises ConversionRefused."""
        absent = [path for path in paths if not path.exists()]
        if absent:
            raise ConversionRefused(f"{absent[0]} does not exist")
        found: dict[str, tuple[Path, ...]] = {}
        for path in paths:
            for file in sorted(path.rglob("*")) if path.is_dir() else (path,):
                role = next((r for r, of in self.roles.items() if re.fullmatch(of.pattern, file.name)), None)
                if role is not None and file.is_file():
                    found[role] = (*found.get(role, ()), file)
                elif not path.is_dir():
                    known = ", ".join(role.example for role in self.roles.values())
                    raise ConversionRefused(f"{file}: {self.name} has no file of this name; it has {known}")
        for role, of in self.roles.items():
            if of.required and role not in found:
                given = ", ".join(map(str, paths))
                raise ConversionRefused(f"{self.name} needs {of.example} too; among {given} there is none")
        return found


def convert(
    how: Format,
    paths: Sequence[Path],
    output: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write examples.parquet, the format's further tables, schema.yaml and dataset.json; appears whole.

    Args:
        how: the format.
        paths: its files, or folders that hold them.
        output: the folder to write; it must not exist.
        progress: is told the rows written and 0, as nobody knows how many there will be.

    Raises:
        ConversionRefused: the output exists, or a file is missing or of no known name.
        MalformedSource: a file is not in the published form.
    """
    if output.exists():
        raise ConversionRefused(f"{output} exists; choose another folder or remove this one")
    files = how.assign(paths)
    staging = output.with_name(f".{output.name}.{secrets.token_hex(4)}")
    staging.mkdir(parents=True)
    try:
        rows = {EXAMPLES: _stream(staging / EXAMPLES, how.examples(files), progress)}
        for name, table in how.entities(files, staging / EXAMPLES).items():
            pq.write_table(table, staging / f"{name}.parquet", compression="zstd")
            rows[f"{name}.parquet"] = table.num_rows
        shutil.copyfile(how.schema, staging / SCHEMA)
        (staging / RECORD_FILE).write_text(_record(how, files, staging, rows).to_json(), encoding="utf-8")
        staging.replace(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return output


def _stream(path: Path, batches: Batches, progress: Callable[[int, int], None] | None) -> int:
    """Each piece becomes a row group -> the number of rows."""
    done, writer = 0, None
    try:
        for batch in batches:
            table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
            done += table.num_rows
            if progress is not None:
                progress(done, 0)
    finally:
        if writer is not None:
            writer.close()
    if not done:
        raise ConversionRefused("the files hold no rows")
    return done


def _record(how: Format, files: Files, folder: Path, rows: Mapping[str, int]) -> Record:
    sources = tuple(file for of_role in files.values() for file in of_role)
    provenance = Provenance(
        name=how.name,
        source=", ".join(file.name for file in sources),
        source_sha256=combined_digest(sources),
        licence="the publisher's; see where you have the files from",
        citation=how.description,
        preparation=how.preparation,
    )
    tables = {
        name: TableFile(count, (folder / name).stat().st_size, sha256_of(folder / name))
        for name, count in rows.items()
    }
    return Record(provenance, None, None, tables)
