"""A few invented rows in the true form of each published data set. Nothing in them is real data."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROWS = 240
KUAIRAND_LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)
KUAIRAND_USERS = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,"
    "follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,"
    "register_days,register_days_range," + ",".join(f"onehot_feat{k}" for k in range(18))
)
KUAIRAND_VIDEOS = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,"
    "server_height,music_id,music_type,tag"
)
AVAZU = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
    "device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
)


def criteo(folder: Path) -> None:
    """Tabs, no header, hexadecimal names, and nothing where nothing is known."""
    rng = np.random.default_rng(0)
    lines = []
    for k in range(ROWS):
        numbers = ["" if (k + j) % 5 == 0 else str(rng.integers(-3, 5000)) for j in range(13)]
        names = ["" if (k + j) % 7 == 0 else f"{rng.integers(1 << 32):08x}" for j in range(26)]
        lines.append("\t".join([str(k % 3 % 2), *numbers, *names]))
    (folder / "train.txt").write_text("\n".join(lines) + "\n")


def avazu(folder: Path) -> None:
    """Ids of up to 20 digits, hours as YYMMDDHH; compressed, as Kaggle ships it."""
    lines = [AVAZU]
    for k in range(ROWS):
        hour = f"1410{21 + k // 24:02d}{k % 24:02d}"
        site = ",".join(f"{k % 9 + j:08x}" for j in range(9))
        codes = ",".join(str(20_000 + k % 11 + j) for j in range(8))
        lines.append(f"{10_000_000_000_000_000_000 + k},{k % 2},{hour},1005,{k % 3},{site},1,{k % 4},{codes}")
    with gzip.open(folder / "train.csv.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")


def frappe(folder: Path) -> None:
    """Ten entries a line, ids counted through all fields, labels of 1 and -1, one file a split."""
    for name, rows in (("train", 120), ("validation", 60), ("test", 60)):
        lines = []
        for k in range(rows):
            ids = [k % 30, 957 + k % 40, *(5039 + 10 * field + k % 3 for field in range(8))]
            lines.append(" ".join([str(1 if k % 3 == 0 else -1), *(f"{i}:1" for i in ids)]))
        (folder / f"frappe.{name}.libfm").write_text("\n".join(lines) + "\n")


def movielens_1m(folder: Path) -> None:
    """Two colons between columns, latin-1, single colons and quotes in titles."""
    people = [f"{u}::{'FM'[u % 2]}::{(1, 18, 25)[u % 3]}::{u % 21}::{u:05d}" for u in range(1, 31)]
    films = [
        "1::Toy Story (1995)::Animation|Children's|Comedy",
        '2::Mission: "Impossible" (1996)::Action',
        "3::Misérables, Les (1995)::Drama|Musical",
        *(f"{m}::Film {m} (19{70 + m % 30})::Drama" for m in range(4, 21)),
    ]
    ratings = [
        f"{1 + k % 30}::{1 + k * 7 % 20}::{1 + k * 11 % 5}::{978_300_000 + 60 * k}" for k in range(ROWS)
    ]
    for name, lines in (("ratings", ratings), ("users", people), ("movies", films)):
        (folder / f"{name}.dat").write_bytes(("\n".join(lines) + "\n").encode("latin-1"))


def taobao_ads(folder: Path) -> None:
    """A header with a blank at its end, NULL for unknown brands, nothing for unknown levels."""
    sample = ["user,time_stamp,adgroup_id,pid,nonclk,clk"]
    for k in range(ROWS):
        click, pid = int(k % 3 == 0), ("430548_1007", "430539_1007")[k % 2]
        ids = f"{900_000 + k % 25},{1_494_000_000 + 300 * k},{10_000 + k % 18}"
        sample.append(f"{ids},{pid},{1 - click},{click}")
    ads = ["adgroup_id,cate_id,campaign_id,customer,brand,price"]
    ads += [
        f"{10_000 + a},{6261 + a % 4},{83_237 + a},{1 + a},{'NULL' if a % 3 else 95_471},{170.5 + a}"
        for a in range(17)
    ]
    header = (
        "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation,"
    )
    users = [header + "new_user_class_level "]
    users += [
        f"{900_000 + u},{u % 90},{u % 13},{1 + u % 2},{u % 7},"
        f"{1 + u % 3 if u % 2 else ''},3,0,{'' if u % 4 else 2}"
        for u in range(24)
    ]
    for name, lines in (("raw_sample", sample), ("ad_feature", ads), ("user_profile", users)):
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


def kuairand(folder: Path) -> None:
    """Whole numbers with a point, ranges in brackets, several tags in quotes, two logs."""
    for part, first in (("4_08_to_4_21", 0), ("4_22_to_5_08", ROWS // 2)):
        log = [KUAIRAND_LOG]
        for k in range(first, first + ROWS // 2):
            time_ms = 1_649_400_000_123 + 3_600_000 * k
            log.append(
                f"{k % 20},{100 + k % 15},20220408,1600,{time_ms},{k % 2},{k % 5 // 4},0,0,0,0,{k % 3 // 2},"
                f"1385,209900,0,0,0,0,{k % 4}"
            )
        (folder / f"log_standard_{part}_pure.csv").write_text("\n".join(log) + "\n")
    users = [KUAIRAND_USERS]
    for u in range(20):
        features = ",".join(
            "" if u == 3 and j > 11 else f"{float(u % 3)}" if j > 11 else str(j) for j in range(18)
        )
        users.append(f'{u},full_active,0,0,1,5,"(0,10]",4,"[1,10)",2,"[1,5)",327,181-365,{features}')
    videos = [KUAIRAND_VIDEOS]
    for v in range(14):
        tag = ("39", '"12,65"', "")[v % 3]
        videos.append(
            f"{100 + v},{v % 5},NORMAL,2022-04-10,LongImport,0.0,87433.0,720.0,1280.0,9155697141,9.0,{tag}"
        )
    (folder / "user_features_pure.csv").write_text("\n".join(users) + "\n")
    (folder / "video_features_basic_pure.csv").write_text("\n".join(videos) + "\n")
    (folder / "video_features_statistic_pure.csv").write_text("video_id,counts\n100,1\n")


WRITERS: dict[str, Callable[[Path], None]] = {
    "criteo": criteo,
    "avazu": avazu,
    "frappe": frappe,
    "movielens-1m": movielens_1m,
    "taobao-ads": taobao_ads,
    "kuairand": kuairand,
}
