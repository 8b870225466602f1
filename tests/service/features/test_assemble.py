from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankd_contract.columns import Column
from rankd_contract.encoding import Block, Encoder
from rankd_contract.packing import FeatureStatus
from rankd_contract.schema import Derive, Entity, FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import inputs
from rankd_service.domain import Candidates, Fields, RankRequest, User
from rankd_service.errors import InvalidRequest
from rankd_service.features.assemble import Assembler, Features
from tests.support.bundles import SCHEMA_TEXT, rows
from tests.support.example_schema import EXAMPLE

NOW_S = 1_800_000_000.0
FILMS = parse_schema(SCHEMA_TEXT)
PRESENT, NOT_FOUND = FeatureStatus.PRESENT, FeatureStatus.NOT_FOUND


def stored(
    schema: FeatureSchema, view: str, ids: list[str], event_time_s: float, **columns: list[Any]
) -> dict[str, bytes]:
    key = schema.view(view).key
    given_key = columns.pop(key, ids)
    return rows(schema, view, {key: given_key, **columns}, event_time_s)


def film_rows(ids: list[str], event_time_s: float = NOW_S) -> dict[str, bytes]:
    return stored(
        FILMS,
        "item",
        ids,
        event_time_s,
        genre=["crime"] * len(ids),
        price=[float(len(i)) for i in ids],
        year=[1985] * len(ids),
    )


def viewer_rows(ids: list[str], event_time_s: float = NOW_S) -> dict[str, bytes]:
    return stored(FILMS, "user", ids, event_time_s, age=[20.0] * len(ids), recent=[["7", "8"]] * len(ids))


def assembled(
    store: dict[str, bytes] | FeatureStatus,
    items: list[str],
    *,
    schema: FeatureSchema = FILMS,
    user_fields: Fields | None = None,
    item_fields: dict[int, Fields] | None = None,
    context: Fields | None = None,
    now_s: float = NOW_S,
) -> Features:
    assembler = Assembler(schema, "rankd", clock_skew_s=300)
    request = RankRequest(
        "r", User("42", user_fields or {}), Candidates(items, item_fields or {}), context or {}
    )
    drafts = assembler.draft(request.user, request.candidates, now_s)
    fetched: list[bytes | None] | FeatureStatus = (
        store if isinstance(store, FeatureStatus) else [store.get(key) for key in drafts.keys]
    )
    overrides = assembler.overrides(request)
    return assembler.assemble(drafts, assembler.context(request.context, now_s), overrides, fetched, now_s)


def column(features: Features, schema: FeatureSchema, name: str) -> NDArray[Any]:
    """The part of the tensors that belongs to one field."""
    for entity in Entity:
        for at in schema.layout(entity).fields:
            if at.field.name == name:
                part, where = ("ids", at.ids) if at.field.num_ids else ("values", at.values)
                return np.asarray(features.batch.tensors[f"in_{entity.value}_{part}"][:, where])
    raise KeyError(name)


def test_tensors_are_those_of_the_signature() -> None:
    features = assembled({**viewer_rows(["42"]), **film_rows(["1", "2", "3"])}, ["1", "2", "3"])
    sizes = {"R": 1, "N": 3}
    for spec in inputs(FILMS):
        tensor = features.batch.tensors[spec.name]
        assert tensor.dtype == spec.dtype
        assert tensor.shape == tuple(sizes[d] if isinstance(d, str) else d for d in spec.dims)
        assert tensor.flags.c_contiguous
    assert features.batch.tensors.keys() == {spec.name for spec in inputs(FILMS)}


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_b1_rows_that_are_there_are_exact_whatever_else_is_missing(pattern: list[tuple[bool, bool]]) -> None:
    """A candidate's row is stored, missing or another entity's; each gets its own or the default."""
    items = [str(i) for i in range(len(pattern))]
    store: dict[str, bytes] = {}
    for (there, foreign), (key, packed) in zip(pattern, film_rows(items).items(), strict=True):
        if there:
            store[key] = film_rows(["elsewhere"]).popitem()[1] if foreign else packed
    features = assembled({**viewer_rows(["42"]), **store}, items)
    encoder = Encoder(FILMS, Entity.ITEM)
    whole: dict[str, list[Any]] = {
        "item_id": items,
        "genre": ["crime"] * len(items),
        "price": [float(len(i)) for i in items],
        "year": [1985] * len(items),
    }
    expected = encoder.encode(
        {f.source: Column.from_python(whole[f.source], f) for f in FILMS.view("item").fields}, len(items)
    )
    for row, (there, foreign) in enumerate(pattern):
        kept = there and not foreign
        # The id itself is known from the request, whatever became of its row.
        want_ids = np.r_[expected.ids[row, :1], (expected.ids[row] if kept else encoder.defaults.ids[0])[1:]]
        want_values = expected.values[row] if kept else encoder.defaults.values[0]
        assert features.batch.tensors["in_item_ids"][row].tolist() == want_ids.tolist()
        assert features.batch.tensors["in_item_values"][row].tolist() == want_values.tolist()
        status = PRESENT if kept else FeatureStatus.FOREIGN if there else NOT_FOUND
        assert features.statuses[Entity.ITEM][row] == status
    assert features.defaulted == sum(not there or foreign for there, foreign in pattern)


def test_b2_a_new_user_is_a_cold_start_and_not_a_missing_candidate() -> None:
    features = assembled(film_rows(["1"]), ["1"])
    assert features.statuses[Entity.USER].tolist() == [NOT_FOUND]
    assert column(features, FILMS, "age").tolist() == [[np.float32(np.log1p(30))]]
    assert features.defaulted == 0


@pytest.mark.parametrize("store", [{}, FeatureStatus.TIMED_OUT, FeatureStatus.DEFAULTED])
def test_b2_an_id_needs_no_row_to_be_looked_up(store: Any) -> None:
    """A model that knows who asks goes on ranking for them while the store is away."""
    there = assembled(viewer_rows(["42"]) | film_rows(["1", "9"]), ["1", "9"])
    away = assembled(store, ["1", "9"])
    for name in ("user_id", "item_id"):
        assert column(away, FILMS, name).tolist() == column(there, FILMS, name).tolist()
    assert away.statuses[Entity.ITEM].tolist() == [store or NOT_FOUND] * 2
    assert away.defaulted == 2, "the rest of the row is missed as before"
    given = assembled(store, ["1"], item_fields={0: {"item_id": "9"}})
    assert column(given, FILMS, "item_id").tolist() == column(there, FILMS, "item_id").tolist()[1:]


NUMBERED = """
rankd_schema: 1
name: numbered
views:
  - name: shop
    entity: item
    key: shop
    fields:
      - {name: shop, kind: categorical, dtype: int64, hash: 1000}
      - {name: flag, kind: categorical, dtype: bool, source: shop, vocabulary: [false, true]}
      - {name: size, kind: numeric, dtype: int64, source: shop, default: 0}
tasks: [{name: bought}]
"""


def test_an_id_that_is_no_number_is_missing_from_a_field_of_numbers() -> None:
    schema = parse_schema(NUMBERED)
    ids = ["7", "-7", "007", "+7", "7.0", "x", str(2**63), "9" * 30, "\u0667"]
    features = assembled({}, ids, schema=schema)
    field = schema.fields["shop"]
    found = column(features, schema, "shop")[:, 0].tolist()
    encoder, block = Encoder(schema, Entity.ITEM), Block.empty(2, schema.layout(Entity.ITEM))
    encoder.encode_field(encoder.by_name["shop"], Column.from_python([7, -7], field), block, slice(None))
    assert found[:2] == block.ids[:, 0].tolist(), "as training encoded them"
    assert set(found[2:]) == {0}, "missing"
    assert column(features, schema, "flag")[:, 0].tolist() == [0] * len(ids)
    assert column(features, schema, "size")[:, 0].tolist() == [0.0] * len(ids)


def test_a_time_is_checked_whether_anything_is_derived_of_it_or_not() -> None:
    schema = parse_schema(NUMBERED)
    others: list[Any] = ["x", 1.5, True, [], 10**25, 1_764_061_200_000, -1]
    for wrong in others:
        with pytest.raises(InvalidRequest, match="expected whole seconds since 1970"):
            assembled({}, ["7"], schema=schema, context={"timestamp": wrong})
    assert assembled({}, ["7"], schema=schema, context={"timestamp": 1_764_061_200}).defaulted == 1


def test_no_tensor_holds_nan_when_the_store_gave_nothing() -> None:
    features = assembled(FeatureStatus.TIMED_OUT, ["1", "2"])
    assert features.statuses[Entity.ITEM].tolist() == [FeatureStatus.TIMED_OUT] * 2
    assert features.defaulted == 2
    assert column(features, FILMS, "price").tolist() == [[0.5], [0.5]]
    assert not any(np.isnan(t).any() for t in features.batch.tensors.values())


def test_nulls_inside_a_stored_row_become_the_declared_default() -> None:
    store = stored(FILMS, "item", ["1"], NOW_S, genre=[None], price=[None], year=[None])
    features = assembled(store, ["1"])
    assert features.statuses[Entity.ITEM].tolist() == [PRESENT]
    assert column(features, FILMS, "price").tolist() == [[0.5]]
    assert column(features, FILMS, "genre").tolist() == [[2]]
    assert column(features, FILMS, "year").tolist() == [[0]]


@pytest.mark.parametrize(
    ("age_s", "status"),
    [
        (30 * 86_400 - 1, PRESENT),
        (30 * 86_400 + 1, FeatureStatus.OUTSIDE_MAX_AGE),
        (-299, PRESENT),
        (-301, FeatureStatus.OUTSIDE_MAX_AGE),
    ],
    ids=["B10-fresh", "B10-too-old", "B11-within-skew", "B11-from-the-future"],
)
def test_a_row_is_as_old_as_its_event_time_says(age_s: float, status: FeatureStatus) -> None:
    features = assembled(film_rows(["1"], NOW_S - age_s), ["1"])
    assert features.statuses[Entity.ITEM].tolist() == [status]
    kept = status is PRESENT  # the films' view says on_stale: default
    assert column(features, FILMS, "price").tolist() == [[1.0 if kept else 0.5]]
    assert features.defaulted == (0 if kept else 1)


def test_b10_a_view_that_says_use_stale_keeps_the_old_row_and_marks_it() -> None:
    schema = parse_schema(SCHEMA_TEXT.replace("on_stale: default", "on_stale: use_stale"))
    row = film_rows(["1"], NOW_S - 31 * 86_400)
    features = assembled(row, ["1"], schema=schema)
    assert features.statuses[Entity.ITEM].tolist() == [FeatureStatus.OUTSIDE_MAX_AGE]
    assert column(features, schema, "price").tolist() == [[1.0]]
    assert features.defaulted == 0


def test_request_time_fields_override_stored_ones_and_touch_no_other_row() -> None:
    features = assembled(
        {**viewer_rows(["42"]), **film_rows(["1", "2", "3"])},
        ["1", "2", "3"],
        user_fields={"age": 0, "recent": ["9"]},
        item_fields={1: {"price": 9.5, "genre": "comedy"}, 2: {"genre": None}},
    )
    assert column(features, FILMS, "price").tolist() == [[1.0], [9.5], [1.0]]
    assert column(features, FILMS, "genre").tolist() == [[4], [3], [2]]  # null is the default, drama
    assert column(features, FILMS, "age").tolist() == [[0.0]]
    recent = column(features, FILMS, "recent")[0]
    assert recent[0] > 1
    assert recent[1:].tolist() == [0, 0, 0, 0]


def test_request_time_fields_stand_where_the_row_is_missing() -> None:
    features = assembled({}, ["1"], item_fields={0: {"price": 3.0}})
    assert column(features, FILMS, "price").tolist() == [[3.0]]
    assert features.statuses[Entity.ITEM].tolist() == [NOT_FOUND]


@pytest.mark.parametrize("store", [{}, FeatureStatus.TIMED_OUT, FeatureStatus.DEFAULTED])
def test_a_row_that_the_request_gives_in_full_is_missed_by_nobody(store: Any) -> None:
    whole: Fields = {"genre": "crime", "price": 3.0, "year": None}
    most: Fields = {"genre": "crime", "price": 3.0}
    features = assembled(store, ["1", "2"], item_fields={0: whole, 1: most})
    assert features.defaulted == 1, "the year of the second film is the schema's default"
    assert features.lost == (2 if store else 0), "the user's row is lost, and every score rests on it"
    user: Fields = {"age": 20, "recent": ["7"]}
    features = assembled(store, ["1"], item_fields={0: whole}, user_fields=user)
    assert (features.defaulted, features.lost, features.unreadable) == (0, 0, 0)
    assert features.statuses[Entity.ITEM].tolist() == [store or NOT_FOUND], "what became of it is said"


def test_b9_a_list_longer_than_the_field_keeps_its_first_entries() -> None:
    long = assembled({}, ["1"], user_fields={"recent": [str(i) for i in range(50)]})
    short = assembled({}, ["1"], user_fields={"recent": [str(i) for i in range(5)]})
    assert column(long, FILMS, "recent").tolist() == column(short, FILMS, "recent").tolist()


def test_every_view_of_an_entity_has_its_own_row_and_status() -> None:
    profile = stored(
        EXAMPLE, "user_profile", ["42"], NOW_S, age=[20.0], gender=["M"], member=[True], visits=[3]
    )
    history = stored(EXAMPLE, "user_history", ["42"], NOW_S, recent=[[5, 6]], tags=[["a"]])
    both = assembled({**profile, **history}, ["1"], schema=EXAMPLE)
    assert both.statuses[Entity.USER].tolist() == [PRESENT]
    one = assembled(history, ["1"], schema=EXAMPLE)
    assert one.by_view["user_profile"].tolist() == [NOT_FOUND]
    assert one.by_view["user_history"].tolist() == [PRESENT]
    assert one.statuses[Entity.USER].tolist() == [NOT_FOUND]
    assert column(one, EXAMPLE, "recent").tolist() == column(both, EXAMPLE, "recent").tolist()
    assert column(one, EXAMPLE, "gender").tolist() == [[2]]
    assert column(both, EXAMPLE, "gender").tolist() == [[3]]


def test_b8_ids_beyond_their_table_are_read_as_unknown_and_counted() -> None:
    small = parse_schema(SCHEMA_TEXT.replace("vocabulary: [drama, comedy, crime], default: drama", "hash: 4"))
    assembler = Assembler(small, "rankd", 300)
    view = small.view("item")
    encoder = Encoder(small, Entity.ITEM)
    raw: dict[str, list[Any]] = {
        "item_id": ["1", "2"],
        "genre": ["a", "b"],
        "price": [1.0, 1.0],
        "year": [1, 1],
    }
    block = encoder.encode({f.source: Column.from_python(raw[f.source], f) for f in view.fields}, 2)
    block.ids[0, 1], block.ids[1, 1] = 6, -1
    from rankd_contract.keys import entity_hashes
    from rankd_contract.packing import RowFormat

    packed = RowFormat(small, view).pack(
        block, entity_hashes(view, ["1", "2"]), np.full(2, int(NOW_S * 1000))
    )
    request = RankRequest("r", User("42"), Candidates(["1", "2"]))
    drafts = assembler.draft(request.user, request.candidates, NOW_S)
    features = assembler.assemble(
        drafts, assembler.context({}, NOW_S), assembler.overrides(request), [None, *packed], NOW_S
    )
    assert column(features, small, "genre").tolist() == [[1], [1]]
    assert features.ids_out_of_range == 2


def hours(context: Fields, now_s: float = NOW_S) -> list[int]:
    return [int(v) for v in column(assembled({}, ["1"], context=context, now_s=now_s), FILMS, "hour")[0]]


def test_a_context_field_given_by_name_is_taken_as_it_is() -> None:
    assert hours({"hour": 20}) == [22]
    assert hours({"hour": 99}) == [1]


def test_a_context_field_is_derived_from_the_timestamp_which_is_now_by_default() -> None:
    evening = 20 * 3600 + 86_400 * 365
    assert hours({"timestamp": evening}) == [22]
    assert hours({}, now_s=float(evening)) == [22]
    assert hours({}, now_s=float(evening + 3600)) == [23]
    assert hours({"hour": 3, "timestamp": evening}) == [5]


def test_contexts_that_look_alike_are_not_taken_for_each_other() -> None:
    assembler = Assembler(FILMS, "rankd", 300)
    hour = assembler.context({"hour": 1}, NOW_S)
    assert assembler.context({"hour": 1.0}, NOW_S).ids.tolist() == hour.ids.tolist(), "a whole number is one"
    for imposter in (True, 1.5):
        with pytest.raises(InvalidRequest):
            assembler.context({"hour": imposter}, NOW_S)


def test_what_is_derived_from_a_time_is_constant_within_its_hour() -> None:
    """The cache of contexts relies on it."""
    schema = EXAMPLE
    assert {f.derive for f in schema.fields.values() if f.derive} == set(Derive)
    assembler = Assembler(schema, "rankd", 300)
    for start in range(0, 86_400 * 8, 3600):
        first = Assembler(schema, "rankd", 300).context({}, float(start))
        last = assembler.context({}, float(start + 3599))
        assert first.ids.tolist() == last.ids.tolist()


def test_p7_the_cache_of_contexts_is_bounded_in_number_and_in_size() -> None:
    assembler = Assembler(FILMS, "rankd", 300)
    for second in range(10_000):
        assembler.context({"timestamp": second}, NOW_S)
    assert 0 < len(assembler._contexts) <= 4096
    kept = len(assembler._contexts)
    assembler.context({"device": "x" * 1000}, NOW_S)
    assert len(assembler._contexts) == kept


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({"user_fields": {"agee": 1}}, "user.fields.agee", "did you mean 'age'"),
        ({"user_fields": {"age": "x"}}, "user.fields.age", "expected float32, got a string"),
        ({"item_fields": {2: {"price": True}}}, "items.2.fields.price", "expected float32, got a boolean"),
        ({"item_fields": {1: {"year": 1.5}}}, "items.1.fields.year", "expected int64, got a fraction"),
        ({"item_fields": {1: {"prise": 1.5}}}, "items.1.fields.prise", "did you mean 'price'"),
        ({"user_fields": {"recent": "9"}}, "user.fields.recent", "expected a list of string"),
        ({"user_fields": {"recent": ["9", 1]}}, "user.fields.recent", "expected string"),
        ({"context": {"hours": 1}}, "context.hours", "did you mean 'hour'"),
        ({"context": {"device": 1}}, "context.device", "expected string"),
        (
            {"context": {"timestamp": "now"}},
            "context.timestamp",
            r"expected whole seconds since 1970 \(UTC\), got a string",
        ),
        (
            {"context": {"timestamp": 1_700_000_000_000}},
            "context.timestamp",
            r"expected whole seconds since 1970 \(UTC\), got a time after the year 9999",
        ),
        ({"context": {"timestamp": -1}}, "context.timestamp", "got a time before 1970"),
        ({"context": {"timestamp": 1.5}}, "context.timestamp", "got a fraction"),
        ({"context": {"timestamp": True}}, "context.timestamp", "got a boolean"),
        ({"context": {"DEVICE": "phone"}}, "context.DEVICE", "did you mean 'device'"),
        ({"context": {"timestamp": 2**70}}, "context.timestamp", "a larger number"),
        ({"item_fields": {1: {"price": 1e300}}}, "items.1.fields.price", "expected a finite float32"),
        ({"context": {"bad key!": 1}}, "context.?", "no such field"),
        ({"context": {"hou-r.!": 1}}, "context.hou-r.!", "did you mean 'hour'"),
        ({"item_fields": {1: {"pri-ce": 1.5}}}, "items.1.fields.pri-ce", "did you mean 'price'"),
        ({"context": {"k" * 65: 1}}, "context.?", "no such field"),
    ],
)
def test_c13_a_field_that_does_not_fit_is_named_before_anything_is_read(
    fields: dict[str, Any], path: str, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        assembled({}, ["1", "2", "3"], **fields)
    assert refused.value.field == path
