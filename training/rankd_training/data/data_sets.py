"""The data sets that have a name: what they are, on what terms, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankd_training.data.local import LocalSource
from rankd_training.data.movielens_latest import read_latest
from rankd_training.data.origins import (
    MOVIELENS_100K_GROUPLENS,
    MOVIELENS_100K_WHEEL,
    MOVIELENS_SYNTHETIC,
    Origin,
)
from rankd_training.data.prepared import Provenance
from rankd_training.data.tables import read_census, read_diabetes

__all__ = ["DATA_SETS", "DataSet"]

SCHEMAS = Path(__file__).parent.parent / "schemas"


@dataclass(frozen=True, slots=True)
class DataSet:
    """A named data set: fetched from one of its origins, or prepared from files that the user brings.

    `preparation` goes up whenever the same source gives other tables.
    """

    name: str
    description: str
    licence: str
    citation: str
    preparation: int
    time_column: tuple[str, str] | None
    schema_name: str
    origins: tuple[Origin, ...] = ()
    local: LocalSource | None = None

    @property
    def schema(self) -> Path:
        """The schema file that describes its columns."""
        return SCHEMAS / self.schema_name

    def provenance(self, title: str, sha256: str) -> Provenance:
        """What a folder prepared from a source of that title and digest records."""
        return Provenance(self.name, title, sha256, self.licence, self.citation, self.preparation)


_MOVIELENS_CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872"
)
DATA_SETS = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            name="movielens-100k",
            description=(
                "100,000 ratings of 1,682 films by 943 users from 1997 and 1998, with age, gender and "
                "occupation (MovieLens, GroupLens Research)"
            ),
            licence=(
                "Research use with acknowledgement; no redistribution and no commercial use without "
                "permission of GroupLens, University of Minnesota, and no implied endorsement by them."
            ),
            citation=_MOVIELENS_CITATION,
            preparation=1,
            time_column=("examples", "timestamp"),
            schema_name="movielens-100k.yaml",
            origins=(MOVIELENS_100K_WHEEL, MOVIELENS_100K_GROUPLENS),
        ),
        DataSet(
            name="movielens-synthetic",
            description=(
                "100,000 invented ratings of 1,500 invented films by 900 invented users with planted tastes, "
                "in the same form; made on this machine, needs no network"
            ),
            licence="Made by rankd, Apache-2.0.",
            citation="",
            preparation=1,
            time_column=("examples", "timestamp"),
            schema_name="movielens-100k.yaml",
            origins=(MOVIELENS_SYNTHETIC,),
        ),
        DataSet(
            name="movielens-latest-small",
            description=(
                "100,836 ratings in half stars of 9,724 films by 610 users from 1996 to 2018 (MovieLens, "
                "GroupLens Research); your own copy"
            ),
            licence=(
                "May be redistributed, also transformed, under the same conditions; no commercial use "
                "without permission of GroupLens, University of Minnesota; no implied endorsement by them."
            ),
            citation=_MOVIELENS_CITATION,
            preparation=1,
            time_column=("examples", "timestamp"),
            schema_name="movielens-latest-small.yaml",
            local=LocalSource(
                folders=("ml-latest-small", "movielens-latest-small"),
                layouts=(("ratings.csv", "movies.csv"), ("ratings.parquet", "movies.parquet")),
                obtain="https://files.grouplens.org/datasets/movielens/ml-latest-small.zip, unpacked",
                tables=read_latest,
            ),
        ),
        DataSet(
            name="diabetes130",
            description=(
                "101,766 hospital stays of diabetes patients, 1999 to 2008: readmitted within 30 days? 43 "
                "categorical fields in ARM-Net's encoding and split; your own copy"
            ),
            licence="CC BY 4.0 according to the UCI repository's page of the data set.",
            citation=(
                "Beata Strack et al. 2014. Impact of HbA1c Measurement on Hospital Readmission Rates. BioMed "
                "Research International 2014, Article 781670. https://doi.org/10.1155/2014/781670"
            ),
            preparation=1,
            time_column=None,
            schema_name="diabetes130.yaml",
            local=LocalSource(
                folders=("diabetes130",),
                layouts=(("encoded.parquet",),),
                obtain=(
                    "UCI's 'Diabetes 130-US hospitals' table (diabetic_data.csv) in the encoding and split "
                    "of ARM-Net's repository (data/uci_diabetes), as one Parquet file: encounter_id, label "
                    "(0 or 1), split (train, valid, test), and an integer column a field with ARM-Net's ids"
                ),
                tables=read_diabetes,
            ),
        ),
        DataSet(
            name="census-income",
            description=(
                "99,762 records of the US census of 1994 and 1995: income above 50,000? never married? 39 "
                "fields, two tasks; your own copy"
            ),
            licence="CC BY 4.0 according to the UCI repository's page of the data set.",
            citation="Census-Income (KDD). 2000. UCI Machine Learning Repository. https://doi.org/10.24432/C5N30T",
            preparation=1,
            time_column=None,
            schema_name="census-income.yaml",
            local=LocalSource(
                folders=("census_income_kdd", "census-income"),
                layouts=(("census_income_kdd.parquet",),),
                obtain=(
                    "UCI's 'Census-Income (KDD)' test part (census-income.test) as one Parquet file: its "
                    "40 columns by name, label_income and label_never_married (0 or 1), split (train, "
                    "valid, test)"
                ),
                tables=read_census,
            ),
        ),
    )
}
