"""What constrained decoding guarantees: an untrained ``uc_uie`` on real sentences, free and constrained.

``python -m benchmarks.uie_constrained corpus/uie/test.spacy --base training/uie_compact --documents 500`` prints how
many documents have malformed output, fillers that are not in the text, and unknown types.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import spacy
import typer
from spacy.vocab import Vocab

from spacy_ie_moe.corpora.reader import make_example, read_docs
from spacy_ie_moe.uc_uie.frames import CUT, ENDED, MALFORMED, TRUNCATED, UNGROUNDABLE, UNKNOWN_SLOT, UNKNOWN_TYPE

KINDS = (MALFORMED, TRUNCATED, CUT, ENDED, UNGROUNDABLE, UNKNOWN_TYPE, UNKNOWN_SLOT)


def main(
    path: Annotated[Path, typer.Argument(help="Documents with frames (.spacy), for their texts, tasks and schemas.")],
    base: Annotated[str, typer.Option(help="A causal language model.")],
    documents: Annotated[int, typer.Option(help="So many documents.")] = 500,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer.")] = 96,
) -> None:
    """Count what has to be left out of what an untrained model writes."""
    nlp = spacy.blank("en")
    model = {"@architectures": "spacy_ie_moe.UCUIE.v1", "base": base, "adapter": None}
    pipe: Any = nlp.add_pipe("uc_uie", config={"max_new_tokens": max_new_tokens, "text_tokens": 128, "model": model})
    for constrained in (False, True):
        pipe.constrained = constrained
        docs = [make_example(doc, gold_ents=False).predicted for doc in islice(read_docs(path, Vocab()), documents)]
        having: Counter[str] = Counter()
        frames = 0
        for doc in nlp.pipe(docs):
            frames += len(doc._.frames)
            having.update({issue["kind"] for issue in doc._.uie_issues})
        counts = ", ".join(f"{kind} {having[kind]}" for kind in KINDS)
        typer.echo(f"{'constrained' if constrained else 'free':<12} {len(docs)} documents, {frames} frames: {counts}")


if __name__ == "__main__":
    typer.run(main)
