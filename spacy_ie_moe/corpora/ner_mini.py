"""The corpora of ``ner-mini``, the small bundled entity recogniser.

    python -m spacy_ie_moe.corpora.ner_mini corpus/ner_mini --seed 0

Only data whose licence allows redistribution is read: Re-DocRED (MIT), wikigold (CC BY 4.0) and, without
their annotation, KnowledgeNet (MIT) and FewRel (MIT).

==================  =========================================================================
train.spacy         Re-DocRED train documents in pieces of one to four sentences, and wikigold's
dev.spacy           whole Re-DocRED documents, for the choice of a model
test.spacy          whole Re-DocRED documents, for the score that is reported
wikigold_test.spacy whole wikigold documents (no DATE or NUM in their annotation)
unlabelled.spacy    texts for a teacher to annotate
==================  =========================================================================
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import spacy
import typer
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from .location import data_folder
from .ner import TaggedSentence, detokenise, make_doc, read_columns, read_docred

LABELS = {
    "PER": "PERSON",
    "ORG": "ORG",
    "LOC": "LOC",
    "TIME": "DATE",
    "NUM": "NUM",
    "MISC": "MISC",
}
TEST_DOCS = 60
DEV_DOCS = 40
WIKIGOLD_TEST_DOCS = 25
_QUANTITY_WORDS = """
    january february march april may june july august september october november december
    monday tuesday wednesday thursday friday saturday sunday spring summer autumn fall winter
    day days week weeks month months year years decade decades century centuries
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds
    thousand thousands million millions billion billions dozen dozens half third quarter
    first second fourth fifth sixth seventh eighth ninth tenth percent %
"""
_MAY_BE_QUANTITY = frozenset(_QUANTITY_WORDS.split())


def docred_parts(data: Path, seed: int) -> dict[str, list[list[TaggedSentence]]]:
    """Re-DocRED's documents as train, dev and test (60 documents), with this package's labels."""
    documents = _read_json(data / "re_docred" / "dev_revised.json")
    parsed = [[s.relabelled(LABELS) for s in read_docred(document)] for document in documents]
    random.Random(seed).shuffle(parsed)
    held_out = TEST_DOCS + DEV_DOCS
    return {"test": parsed[:TEST_DOCS], "dev": parsed[TEST_DOCS:held_out], "train": parsed[held_out:]}


def wikigold_parts(data: Path, seed: int) -> dict[str, list[list[TaggedSentence]]]:
    """Wikigold's documents as train and test, with this package's labels."""
    path = _existing(data / "wikigold" / "wikigold.conll.txt")
    with path.open(encoding="utf8") as lines:
        parsed = [[s.relabelled(LABELS) for s in document] for document in read_columns(lines)]
    random.Random(seed).shuffle(parsed)
    return {"test": parsed[:WIKIGOLD_TEST_DOCS], "train": parsed[WIKIGOLD_TEST_DOCS:]}


def nationalities(documents: Iterable[Sequence[TaggedSentence]]) -> frozenset[str]:
    """Single words that ``documents`` call LOC, at least twice and mostly.

    Re-DocRED calls "German" a LOC, wikigold a MISC: this list brings the second to the first.
    """
    seen: Counter[str] = Counter()
    places: Counter[str] = Counter()
    for sentence in (s for document in documents for s in document):
        for start, end, label in sentence.entities:
            if end - start == 1:
                seen[sentence.tokens[start]] += 1
                places[sentence.tokens[start]] += label == "LOC"
    return frozenset(word for word, n in places.items() if n >= 2 and n > seen[word] / 2)


def complete(sentence: TaggedSentence, places: frozenset[str]) -> TaggedSentence:
    """A wikigold sentence in Re-DocRED's terms: single MISC words among ``places`` become LOC."""
    entities = [
        (start, end, "LOC" if end - start == 1 and sentence.tokens[start] in places else label)
        for start, end, label in sentence.entities
    ]
    return TaggedSentence(sentence.tokens, tuple(entities))


def hide_quantities(doc: Doc) -> Doc:
    """Mark what may be an unannotated DATE or NUM in ``doc`` as missing, with a token to each side."""
    taken = {token.i for token in doc if token.ent_iob_ in "BI"}
    hidden = {
        i
        for token in doc
        if token.lower_ in _MAY_BE_QUANTITY or any(c.isdigit() for c in token.text)
        for i in (token.i - 1, token.i, token.i + 1)
        if 0 <= i < len(doc) and i not in taken
    }
    doc.set_ents(list(doc.ents), missing=[Span(doc, i, i + 1) for i in sorted(hidden)])
    return doc


def pieces(document: Sequence[TaggedSentence], rng: random.Random) -> Iterable[Sequence[TaggedSentence]]:
    """The document cut into pieces of one to four sentences."""
    start = 0
    while start < len(document):
        end = start + rng.choice((1, 1, 2, 3, 4))
        yield document[start:end]
        start = end


def unlabelled_texts(data: Path, seed: int, number: int) -> list[str]:
    """``number`` texts of KnowledgeNet and FewRel (annotation not used), without duplicates."""
    texts = [p["passage"] for p in _read_json(data / "knowledgenet" / "train_facts.derived.json")]
    for name in ("train_wiki.partial.json", "val_nyt.json"):
        for instances in _read_json(data / "fewrel" / name).values():
            texts.extend(detokenise([t for t in i["tokens"] if t.strip()])[0] for i in instances)
    texts = sorted({" ".join(text.split()) for text in texts if 20 <= len(text) <= 1000})
    random.Random(seed).shuffle(texts)
    return texts[:number]


def write_docs(path: Path, docs: Iterable[Doc]) -> int:
    """Write ``docs`` to a ``.spacy`` file; returns how many."""
    binary = DocBin(docs=docs, store_user_data=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    binary.to_disk(path)
    return len(binary)


def read_docs(path: Path, vocab: Vocab) -> list[Doc]:
    """The documents of a ``.spacy`` file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; `python -m spacy_ie_moe.corpora.ner_mini` writes it.")
    return list(DocBin().from_disk(path).get_docs(vocab))


def make_corpora(output: Path, data: Path, *, seed: int = 0, unlabelled: int = 40000) -> dict[str, int]:
    """Write every corpus to ``output``; returns the number of documents in each file.

    Unlabelled texts that hold a sentence of the dev or test documents are left out.
    """
    nlp = spacy.blank("en")
    docred = docred_parts(data, seed)
    wikigold = wikigold_parts(data, seed)
    places = nationalities(docred["train"])
    rng = random.Random(seed)
    train = [make_doc(nlp, piece) for document in docred["train"] for piece in pieces(document, rng)]
    train += [
        hide_quantities(make_doc(nlp, [complete(s, places) for s in piece]))
        for document in wikigold["train"]
        for piece in pieces(document, rng)
    ]
    held_out = _sentence_keys([*docred["dev"], *docred["test"], *wikigold["test"]])
    texts = [text for text in unlabelled_texts(data, seed, unlabelled) if not _shares_sentence(text, held_out)]
    corpora = {
        "train": train,
        "dev": [make_doc(nlp, document) for document in docred["dev"]],
        "test": [make_doc(nlp, document) for document in docred["test"]],
        "wikigold_test": [make_doc(nlp, [complete(s, places) for s in document]) for document in wikigold["test"]],
        "unlabelled": [nlp.make_doc(text) for text in texts],
    }
    return {name: write_docs(output / f"{name}.spacy", docs) for name, docs in corpora.items()}


_KEY_WORDS = 8


def _words(text: str) -> list[str]:
    return [word for word in "".join(c if c.isalnum() else " " for c in text.lower()).split()]


def _sentence_keys(documents: Iterable[Sequence[TaggedSentence]]) -> frozenset[tuple[str, ...]]:
    """The first eight words of every sentence that has as many."""
    keys = (_words(" ".join(s.tokens))[:_KEY_WORDS] for document in documents for s in document)
    return frozenset(tuple(key) for key in keys if len(key) == _KEY_WORDS)


def _shares_sentence(text: str, keys: frozenset[tuple[str, ...]]) -> bool:
    words = _words(text)
    return any(tuple(words[i : i + _KEY_WORDS]) in keys for i in range(len(words) - _KEY_WORDS + 1))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; --data or SPACY_IE_MOE_DATA must name the folder of {path.parent.name}/."
        )
    return path


def _read_json(path: Path) -> Any:
    return json.loads(_existing(path).read_text(encoding="utf8"))


def main(
    output: Annotated[Path, typer.Argument(help="Folder for the .spacy files.")],
    data: Annotated[Path | None, typer.Option(help="Data folder.", envvar="SPACY_IE_MOE_DATA")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and the pieces.")] = 0,
    unlabelled: Annotated[int, typer.Option(help="At most so many texts for the teacher.", min=0)] = 40000,
) -> None:
    """Write ner-mini's corpora to OUTPUT."""
    try:
        numbers = make_corpora(output, data or data_folder(), seed=seed, unlabelled=unlabelled)
    except FileNotFoundError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    for name, number in numbers.items():
        typer.echo(f"{output / name}.spacy: {number} documents")


if __name__ == "__main__":
    typer.run(main)
