"""The code of the documentation runs, and does what the pages say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import spacy
import torch

from spacy_ie_moe.gmoe_rte import checkpoint
from spacy_ie_moe.gmoe_rte.backbones import BACKBONES
from spacy_ie_moe.gmoe_rte.features import Entity, Extraction, Features, Triplet

from .test_gmoe_backbones import total
from .test_gmoe_component import Make, found_in, make_examples, make_gmoe, texts_of, train  # noqa: F401
from .test_gmoe_network import SCHEMA, assert_same, f1, join, one_by_one

PAGE = Path(__file__).parents[1] / "docs" / "backbones.md"


@pytest.fixture
def example() -> Iterator[str]:
    """The code of the page, run; the backbone that it registers is forgotten afterwards."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf8"), flags=re.DOTALL)
    before = dict(BACKBONES)
    exec(compile(code, str(PAGE), "exec"), {"__name__": "example"})
    yield code
    BACKBONES.clear()
    BACKBONES.update(before)


def test_the_toy_backbone_has_fewer_than_sixty_lines(example: str) -> None:
    assert len([line for line in example.splitlines() if line.strip()]) < 60


@pytest.mark.parametrize("mixture", [None, "gmoe"])
def test_the_toy_backbone_learns(example: str, mixture: str | None) -> None:
    torch.manual_seed(0)
    lengths = (5, 3, 6)
    features = Features(torch.randn(sum(lengths) + 3, 24), np.array(lengths))
    gold = [
        Extraction([Entity(0, 1, 0), Entity(2, 3, 1)], [Triplet(0, 1, 0), Triplet(0, 1, 1)]),
        Extraction([Entity(1, 2, 2)]),
        Extraction([Entity(0, 1, 1), Entity(3, 4, 0), Entity(5, 6, 2)], [Triplet(2, 0, 2), Triplet(1, 2, 0)]),
    ]
    bundle = checkpoint.new_triplet_network(24, SCHEMA, {"backbone": "words", "mixture": mixture})
    network = bundle.network
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        total(network.train()(features, gold)).backward()
        optimizer.step()
    found = network.eval().predict(features, 0.5)
    assert f1(gold, found) == (1.0, 1.0)
    assert_same(found, [network.predict(part, 0.5)[0] for part in one_by_one(features)])
    assert_same(found[::-1], network.predict(join(one_by_one(features)[::-1]), 0.5))
    again = checkpoint.read_triplet_files(checkpoint.triplet_files(bundle), wanted={"beta": 0.1})
    assert_same(found, again.network.eval().predict(features, 0.5))


def test_the_toy_backbone_in_a_pipeline(example: str, make_gmoe: Make, tmp_path: Path) -> None:  # noqa: F811
    nlp = make_gmoe(model={"backbone": "words", "backbone_settings": {}})
    train(nlp, make_examples(nlp, 20), 30)
    found = [found_in(doc) for doc in nlp.pipe(texts_of(nlp))]
    assert any(relations for relations, *_ in found)
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path)
    assert [found_in(doc) for doc in again.pipe(texts_of(again))] == found
