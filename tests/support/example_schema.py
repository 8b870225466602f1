"""One schema with every kind of field in it, for tests that need a schema but are not about one."""

from __future__ import annotations

from rankd_contract.schema_file import parse_schema

__all__ = ["EXAMPLE", "EXAMPLE_YAML"]

EXAMPLE_YAML = """
rankd_schema: 1
name: example
views:
  - name: user_profile
    entity: user
    key: user_id
    event_time: updated_at
    max_age: 30d
    on_stale: default
    fields:
      - name: age
        kind: numeric
        dtype: float32
        transform: [log1p, {standard: {mean: 3.5, std: 0.5}}]
        default: 30
      - {name: gender, kind: categorical, dtype: string, vocabulary: [F, M], default: F}
      - {name: member, kind: categorical, dtype: bool, vocabulary: [true, false]}
      - {name: visits, kind: numeric, dtype: int64, transform: {bucketize: [1, 5, 25]}}
  - name: user_history
    entity: user
    key: user_id
    fields:
      - {name: recent, kind: sequence, dtype: int64, shares: item, max_length: 4}
      - {name: tags, kind: multi_value, dtype: string, hash: 1000, max_length: 3}
  - name: item_profile
    entity: item
    key: item_id
    max_age: 12h
    fields:
      - {name: item, kind: categorical, dtype: int64, hash: 5000, source: item_id}
      - {name: title, kind: categorical, dtype: string, hash: 300}
      - {name: price, kind: numeric, dtype: float32, default: 0}
      - {name: stock, kind: numeric, dtype: int64, default: 0}
  - name: request
    entity: context
    fields:
      - {name: hour, kind: categorical, derive: hour_of_day, source: request_time}
      - {name: weekday, kind: categorical, derive: day_of_week, source: request_time}
      - {name: device, kind: categorical, dtype: string, vocabulary: [phone, desktop], default: phone}
tasks:
  - {name: click}
  - {name: buy, label: bought, weight: 2}
"""

EXAMPLE = parse_schema(EXAMPLE_YAML)
