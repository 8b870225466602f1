"""Logs of feeds with tables of users and items beside them: Taobao's display ads and Kuaishou's KuaiRand.

The log is streamed; what is known of a row's user and item is looked up in the tables, which are held in
memory, and stands in the example as it will stand in the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankd_training.data.conversion import Files, Format, Role
from rankd_training.data.csv_files import COUNT, INT, NUMBER, TEXT, Types, read, stream

__all__ = ["KUAIRAND", "TAOBAO_ADS"]

# Profiles and features are not dated: these are the last seconds of the logs they come with.
_TAOBAO_END_S, _KUAIRAND_END_S = 1_494_691_186, 1_652_025_599

_TAOBAO_SAMPLE: Types = {
    "user": INT, "time_stamp": INT, "adgroup_id": INT, "pid": TEXT, "clk": INT,
}  # fmt: skip
_TAOBAO_USERS: Types = dict.fromkeys(
    (
        *("userid", "cms_segid", "cms_group_id", "final_gender_code", "age_level", "pvalue_level"),
        *("shopping_level", "occupation", "new_user_class_level"),
    ),
    COUNT,
)
_TAOBAO_ADS: Types = {
    **dict.fromkeys(("adgroup_id", "cate_id", "campaign_id", "customer", "brand"), COUNT),
    "price": NUMBER,
}
_KUAIRAND_LOG: Types = dict.fromkeys(
    (
        *("user_id", "video_id", "time_ms", "is_click", "is_like", "is_follow", "is_comment", "is_forward"),
        *("is_hate", "long_view", "is_rand", "tab"),
    ),
    INT,
)
_KUAIRAND_RANGES = (
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
)
_KUAIRAND_USERS: Types = {
    "user_id": INT,
    **dict.fromkeys(("user_active_degree", *_KUAIRAND_RANGES), TEXT),
    **dict.fromkeys(
        (
            *(
                "is_lowactive_period",
                "is_live_streamer",
                "is_video_author",
                "follow_user_num",
                "fans_user_num",
            ),
            *("friend_user_num", "register_days"),
            *(f"onehot_feat{k}" for k in range(18)),
        ),
        COUNT,
    ),
}
_KUAIRAND_VIDEOS: Types = {
    "video_id": INT,
    "author_id": INT,
    **dict.fromkeys(("video_type", "upload_dt", "upload_type", "tag"), TEXT),
    **dict.fromkeys(("visible_status", "music_type", "music_id", "server_width", "server_height"), COUNT),
    "video_duration": NUMBER,
}


@dataclass(frozen=True, slots=True)
class _Known:
    """A table of entities, sorted by key, and the look-up of many keys at once."""

    key: str
    table: pa.Table
    key_E: npt.NDArray[np.int64]

    @classmethod
    def of(cls, key: str, table: pa.Table) -> Self:
        """Of a key given twice the first row counts."""
        table = table.sort_by(key).combine_chunks()
        key_E, first = np.unique(table[key].to_numpy(), return_index=True)
        return cls(key, table.take(first), key_E)

    def columns(self, ids: Any) -> Mapping[str, Any]:
        """What is known of these ids, by column but the key; null where nothing is."""
        id_n = ids.to_numpy(zero_copy_only=False)
        row_n = np.minimum(np.searchsorted(self.key_E, id_n), len(self.key_E) - 1)
        others: Any = self.table.drop_columns(self.key)
        found = others.take(pa.array(row_n, mask=self.key_E[row_n] != id_n))
        return dict(zip(found.column_names, found.columns, strict=True))

    def dated(self, time_s: int) -> pa.Table:
        """The table as the store takes it."""
        return self.table.append_column("event_time", pa.array([time_s] * self.table.num_rows, INT))


def _taobao_known(files: Files) -> tuple[_Known, _Known]:
    users = read(files["users"][0], _TAOBAO_USERS).rename_columns({"userid": "user_id"})
    return _Known.of("user_id", users), _Known.of("adgroup_id", read(files["ads"][0], _TAOBAO_ADS))


def _taobao(files: Files) -> Iterator[pa.Table]:
    users, ads = _taobao_known(files)
    for path in files["sample"]:
        for batch in stream(path, _TAOBAO_SAMPLE):
            user, ad = batch.column("user"), batch.column("adgroup_id")
            yield pa.table(
                {
                    "user_id": user,
                    **users.columns(user),
                    "adgroup_id": ad,
                    **ads.columns(ad),
                    "pid": batch.column("pid"),
                    "timestamp": batch.column("time_stamp"),
                    "click": batch.column("clk"),
                }
            )


def _taobao_entities(files: Files, examples: Path) -> Mapping[str, pa.Table]:
    users, ads = _taobao_known(files)
    return {"users": users.dated(_TAOBAO_END_S), "items": ads.dated(_TAOBAO_END_S)}


def _kuairand_known(files: Files) -> tuple[_Known, _Known]:
    videos = read(files["videos"][0], _KUAIRAND_VIDEOS)
    tags: Any = videos["tag"]
    videos = videos.drop_columns("tag").append_column("tags", pc.split_pattern(tags, ","))
    return _Known.of("user_id", read(files["users"][0], _KUAIRAND_USERS)), _Known.of("video_id", videos)


def _kuairand(files: Files) -> Iterator[pa.Table]:
    users, videos = _kuairand_known(files)
    for path in files["log"]:
        for batch in stream(path, _KUAIRAND_LOG):
            user, video = batch.column("user_id"), batch.column("video_id")
            log = {name: batch.column(name) for name in _KUAIRAND_LOG if name not in {"user_id", "video_id"}}
            milliseconds = log.pop("time_ms")
            yield pa.table(
                {
                    "user_id": user,
                    **users.columns(user),
                    "video_id": video,
                    **videos.columns(video),
                    **log,
                    "timestamp": pc.divide(milliseconds, pa.scalar(1000)),
                }
            )


def _kuairand_entities(files: Files, examples: Path) -> Mapping[str, pa.Table]:
    users, videos = _kuairand_known(files)
    return {"users": users.dated(_KUAIRAND_END_S), "items": videos.dated(_KUAIRAND_END_S)}


TAOBAO_ADS = Format(
    name="taobao-ads",
    description="Ad display and click data of Taobao (Alimama): 26 million impressions of 8 days in May 2017",
    roles={
        "sample": Role(r"raw_sample.*\.csv(\.gz)?", "raw_sample.csv"),
        "ads": Role(r"ad_feature.*\.csv(\.gz)?", "ad_feature.csv"),
        "users": Role(r"user_profile.*\.csv(\.gz)?", "user_profile.csv"),
    },
    examples=_taobao,
    entities=_taobao_entities,
    advice="--split-time timestamp",
)
KUAIRAND = Format(
    name="kuairand",
    description="KuaiRand (Gao et al. 2022, Kuaishou): impressions of short videos with what followed",
    roles={
        "log": Role(r"log_(standard|random).*\.csv(\.gz)?", "log_standard_4_22_to_5_08_pure.csv"),
        "users": Role(r"user_features.*\.csv(\.gz)?", "user_features_pure.csv"),
        "videos": Role(r"video_features_basic.*\.csv(\.gz)?", "video_features_basic_pure.csv"),
    },
    examples=_kuairand,
    entities=_kuairand_entities,
    advice="--split-time timestamp",
)
