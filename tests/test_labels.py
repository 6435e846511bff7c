"""The forms that users write labels in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_ie_moe.labels import RelationLabel, is_probability, parse_labels


def test_names_become_labels_that_allow_everything() -> None:
    assert parse_labels(["a", "b"]) == [RelationLabel("a"), RelationLabel("b")]
    assert parse_labels(("b", "a")) == [RelationLabel("b"), RelationLabel("a")]
    assert parse_labels([]) == parse_labels({}) == []


def test_sets_have_one_order() -> None:
    assert [label.name for label in parse_labels({"b", "c", "a"})] == ["a", "b", "c"]


def test_options() -> None:
    (label, inverse) = parse_labels(
        {
            "parent": {
                "allowed_head": ["PER"],
                "allowed_tail": ("PER", "ORG"),
                "inverse": "child",
                "threshold": 0,
                "description": "gave birth",
            },
            "child": {"symmetric": True},
        }
    )
    assert label == RelationLabel(
        "parent", frozenset({"PER"}), frozenset({"PER", "ORG"}), False, "child", 0, "gave birth"
    )
    assert inverse.symmetric


@pytest.mark.parametrize("options", [None, {}, {"allowed_head": None}, {"allowed_head": [], "allowed_tail": []}])
def test_missing_options_mean_any_type(options: Any) -> None:
    # peers.md 1.2, item 1: the reference drops such a label's every relation.
    assert parse_labels({"a": options}) == [RelationLabel("a")]


def test_duplicates_collapse_to_the_first() -> None:
    assert [label.name for label in parse_labels(["b", "a", "b"])] == ["b", "a"]


def test_the_wrapping_of_glirel_is_undone() -> None:
    assert parse_labels({"glirel_labels": ["a"]}) == [RelationLabel("a")]
    typed = {"a": {"allowed_head": ["PER"]}}
    assert parse_labels({"glirel_labels": typed}) == parse_labels(typed)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("founder", "labels is 'founder'; expected a list of names"),
        (3, "labels is 3"),
        (None, "labels is None"),
        ([""], "label ''; expected a non-empty string"),
        ([" \t"], "expected a non-empty string"),
        ([3], "label 3; expected a non-empty string"),
        ([["a"]], "expected a non-empty string"),
        ({"a": "PER"}, r"labels\['a'\] is 'PER'; expected a dict of options"),
        ({"a": ["PER"]}, "expected a dict of options"),
        ({"a": {"allowed_heads": ["PER"]}}, "option 'allowed_heads'; expected one of allowed_head, allowed_tail"),
        ({"a": {"allowed_head": "PER"}}, r"\['allowed_head'\] is 'PER'; expected a list of entity types"),
        ({"a": {"allowed_tail": [1]}}, "expected a list of entity types"),
        ({"a": {"symmetric": "yes"}}, "expected true or false"),
        ({"a": {"inverse": "b"}}, "'b'; expected the name of another given label"),
        ({"a": {"inverse": 1}}, "expected a label name"),
        ({"a": {"threshold": 1.5}}, "expected a number from 0 to 1"),
        ({"a": {"threshold": True}}, "expected a number from 0 to 1"),
        ({"a": {"threshold": float("nan")}}, "expected a number from 0 to 1"),
        ({"a": {"description": 1}}, "expected a string"),
    ],
)
def test_wrong_labels_are_named(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_labels(labels)


def test_errors_say_where_the_labels_are_from() -> None:
    with pytest.raises(ValueError, match=r"doc._.relation_labels\['a'\]"):
        parse_labels({"a": {"threshold": 2}}, where="doc._.relation_labels")


@pytest.mark.parametrize("value", [0, 1, 0.0, 0.3, 1.0])
def test_probabilities(value: float) -> None:
    assert is_probability(value)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), "0.5", None, True])
def test_not_probabilities(value: Any) -> None:
    assert not is_probability(value)


@given(st.lists(st.text(min_size=1).filter(str.strip), max_size=20))
def test_any_names_are_kept_in_order_and_once(names: list[str]) -> None:
    assert [label.name for label in parse_labels(names)] == list(dict.fromkeys(names))


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(anything)
def test_anything_is_parsed_or_refused_in_words(labels: Any) -> None:
    try:
        parsed = parse_labels(labels)
    except ValueError as error:
        assert "expected" in str(error)
    else:
        assert all(isinstance(label, RelationLabel) for label in parsed)
