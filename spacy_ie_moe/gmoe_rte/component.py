"""``gmoe_rte``: entities and the relations between them, found together by one trained network."""

# No postponed annotations here: spaCy reads the types of factories and of initialize at run time.

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from spacy import util
from spacy.language import Language
from spacy.tokens import Doc, Span, SpanGroup
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Config, Model, Optimizer

from ..labels import is_probability, is_whole_number
from ..relations import Relation, make_relation, require_extensions, sort_relations
from ..saved_pipe import SavedPipe
from ..saved_settings import SavedSettings
from ..streaming import annotate
from ..torch_wrapper import TorchShim, clip_gradients
from .architecture import Batch, encoder_width, read_folders, reset_encoder, triplet_shim, write_folders
from .sentences import Sentences, split_sentences

if TYPE_CHECKING:
    from .checkpoint import TripletBundle
    from .features import Extraction

logger = logging.getLogger(__name__)

DEFAULTS: dict[str, Any] = Config().from_str("""
[gmoe_rte]
threshold = 0.5
symmetric = []
spans_key = "gmoe_rte"
set_ents = true
by_sentence = true
batch_words = 1024

[gmoe_rte.scorer]
@scorers = "spacy_ie_moe.triplet_scorer.v1"

[gmoe_rte.model]
@architectures = "spacy_ie_moe.GMoERTE.v1"
backbone = "sinet"
mixture = "gmoe"
alpha = 1.0
beta = 0.1
rate = 1.0
device = null

[gmoe_rte.model.encoder]
@architectures = "spacy_ie_moe.SentenceEncoder.v1"
name = "sentence-transformers/all-MiniLM-L6-v2"
revision = null
rate = 0.1
mixed_precision = false
precision = "float32"
device = null
""")["gmoe_rte"]


SETTINGS = ("threshold", "spans_key", "set_ents", "by_sentence", "batch_words")
"""What can be changed after the component is made."""


@Language.factory(
    "gmoe_rte",
    assigns=["doc._.relations", "doc.spans", "doc.ents"],
    default_config=DEFAULTS,
    default_score_weights={"rte_ent_f": 0.0, "rte_rel_f": 0.0, "rte_rel_plus_f": 1.0},
)
def make_gmoe_rte(
    nlp: Language,
    name: str,
    model: Model,
    threshold: float,
    symmetric: list[str],
    spans_key: str,
    set_ents: bool,
    by_sentence: bool,
    batch_words: int,
    scorer: Callable | None,
) -> "GMoERTE":
    """The ``gmoe_rte`` component; see ``GMoERTE`` for its options."""
    return GMoERTE(
        nlp.vocab,
        model,
        name,
        threshold=threshold,
        symmetric=symmetric,
        spans_key=spans_key,
        set_ents=set_ents,
        by_sentence=by_sentence,
        batch_words=batch_words,
        scorer=scorer,
    )


class Attention(NamedTuple):
    """Who listened to whom in a document.

    experts: their names. weights: for each layer [tokens, heads, listener, speaker]; rows of speakers sum to 1.
    """

    experts: tuple[str, ...]
    weights: list[np.ndarray]


class GMoERTE(SavedPipe):
    """Finds typed entities and the relations between them: RTE-GMoE.

    Writes ``doc.spans[spans_key]`` (entities, overlapping ones too; their probabilities in ``attrs["scores"]``),
    ``doc.ents`` if ``set_ents`` (where entities overlap, the most probable) and ``Doc._.relations``. What was there
    before is replaced, but for tokens that are blocked for entities. Two of them in one pipeline: the second one's
    relations replace those of the first.

    threshold: the least probability of a relation. symmetric: labels of which head and tail can be swapped, known to
    the network from ``initialize`` on. by_sentence: read sentence by sentence where the pipeline sets sentences; else,
    and where it does not, whole documents. batch_words: words that are read at once, one document at least.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str = "gmoe_rte",
        *,
        threshold: float = 0.5,
        symmetric: Sequence[str] = (),
        spans_key: str = "gmoe_rte",
        set_ents: bool = True,
        by_sentence: bool = True,
        batch_words: int = 1024,
        scorer: Callable | None = None,
    ) -> None:
        require_extensions()
        if not isinstance(symmetric, (list, tuple)) or not all(isinstance(label, str) for label in symmetric):
            raise ValueError(f"symmetric is {symmetric!r}; expected a list of relation labels.")
        self.vocab = vocab
        self.model = model
        self.name = name
        self.scorer = scorer
        self.threshold = threshold
        self._symmetric = list(symmetric)
        self.spans_key = spans_key
        self.set_ents = set_ents
        self.by_sentence = by_sentence
        self.batch_words = batch_words
        self._saved = SavedSettings(DEFAULTS, self._settings())
        self._said: set[str] = set()

    # --- settings ---------------------------------------------------------------------------------------------

    @property
    def threshold(self) -> float:
        """The least probability of a relation."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if not is_probability(value):
            raise ValueError(f"threshold is {value!r}; expected a number from 0 to 1.")
        self._threshold = float(value)

    @property
    def batch_words(self) -> int:
        """Words that are read at once."""
        return self._batch_words

    @batch_words.setter
    def batch_words(self, value: int) -> None:
        if not is_whole_number(value, 1):
            raise ValueError(f"batch_words is {value!r}; expected a whole number of at least 1.")
        self._batch_words = value

    @property
    def symmetric(self) -> tuple[str, ...]:
        """The labels of which head and tail can be swapped: the network's, or before there is one the config's."""
        return self.bundle.network.schema.symmetric if self._shim.loaded else tuple(self._symmetric)

    @property
    def labels(self) -> tuple[str, ...]:
        """The relation labels; none before ``initialize``."""
        return self.bundle.network.schema.relations if self._shim.loaded else ()

    @property
    def entity_labels(self) -> tuple[str, ...]:
        """The entity types; none before ``initialize``."""
        return self.bundle.network.schema.entities if self._shim.loaded else ()

    @property
    def label_data(self) -> dict[str, list[str]]:
        """What ``spacy init labels`` writes and ``initialize`` reads."""
        return {"entities": list(self.entity_labels), "relations": list(self.labels)}

    @property
    def bundle(self) -> "TripletBundle":
        """The triplet network with its settings."""
        return self._shim.bundle

    @property
    def _shim(self) -> TorchShim:
        return triplet_shim(self.model)

    # --- prediction -------------------------------------------------------------------------------------------

    def predict(self, docs: Iterable[Doc]) -> list[list[tuple[int, "Extraction"]]]:
        """What is found in each document: for each sentence its first token, and entities and triplets."""
        _ = self.bundle  # without a network: its error, before the encoder is loaded
        found: list[list[tuple[int, Extraction]]] = []
        for part in self._parts(docs):
            sentences = split_sentences(part, by_sentence=self.by_sentence)
            of_docs: list[list[tuple[int, Extraction]]] = [[] for _ in part]
            if len(sentences):
                extractions = self.model.predict(Batch(sentences, threshold=self._threshold))
                for doc, start, extraction in zip(sentences.owner, sentences.start, extractions, strict=True):
                    of_docs[doc].append((start, extraction))
            found += of_docs
        return found

    def _parts(self, docs: Iterable[Doc]) -> Iterator[list[Doc]]:
        """The documents in runs of at most ``batch_words`` words, one document at least."""
        part: list[Doc] = []
        for doc in docs:
            if part and sum(map(len, part)) + len(doc) > self.batch_words:
                yield part
                part = []
            part.append(doc)
        if part:
            yield part

    def set_annotations(self, docs: Iterable[Doc], scores: list[list[tuple[int, "Extraction"]]]) -> None:
        """Write what ``predict`` found to the documents."""
        for doc, found in zip(docs, scores, strict=True):
            self._annotate(doc, found)

    def _annotate(self, doc: Doc, found: list[tuple[int, "Extraction"]]) -> None:
        schema = self.bundle.network.schema if found else None
        spans: list[Span] = []
        probabilities: list[float] = []
        relations: list[Relation] = []
        for first, extraction in found:
            assert schema is not None
            here = [
                Span(doc, first + entity.start, first + entity.end, label=schema.entities[entity.type])
                for entity in extraction.entities
            ]
            relations += [
                make_relation(here[triplet.head], here[triplet.tail], schema.relations[triplet.label], triplet.score)
                for triplet in extraction.triplets
            ]
            spans += here
            probabilities += [entity.score for entity in extraction.entities]
        doc.spans[self.spans_key] = SpanGroup(
            doc, name=self.spans_key, spans=spans, attrs={"scores": probabilities}
        )
        doc._.relations = sort_relations(relations)
        if self.set_ents:
            blocked = [token.i for token in doc if token.ent_iob == 3 and not token.ent_type]
            ents = _without_overlap(spans, probabilities, set(blocked))
            doc.set_ents(ents, blocked=[doc[i : i + 1] for i in blocked])

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Process a stream in order; if a batch fails its documents are tried one by one."""
        for docs in util.minibatch(stream, size=batch_size):
            yield from annotate(self, docs)

    def attention(self, doc: Doc) -> Attention:
        """How the experts listened to each other when they read ``doc`` (eq. 2)."""
        network = self.bundle.network
        sentences = split_sentences([doc], by_sentence=self.by_sentence)
        if network.mixture is None or not len(sentences):
            return Attention((), [])
        import torch

        from .features import Features

        network.eval()
        rows = torch.as_tensor(self.model.layers[0].predict(sentences), device=self._shim.device)
        features = Features(rows, sentences.lengths)
        words = np.delete(np.arange(len(rows)), features.sentence_rows)
        layers = network.attention(features)
        return Attention(network.mixture.experts, [weights[words].cpu().numpy() for weights in layers])

    def strip_auxiliary(self) -> None:
        """Drop the networks that only training needs; predictions stay the same."""
        shim = self._shim
        shim.bundle.network.strip_auxiliary()
        shim.bundle = shim.bundle

    # --- training ---------------------------------------------------------------------------------------------

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: dict[str, list[str]] | None = None,
    ) -> None:
        """Collect entity types and relation labels from the examples (or take ``labels``) and make the network."""
        from .checkpoint import new_triplet_network
        from .gold import collect_labels
        from .schema import Schema

        validate_get_examples(get_examples, "GMoERTE.initialize")
        found = collect_labels(get_examples(), self.spans_key) if labels is None else _checked_labels(labels)
        schema = Schema(tuple(found["entities"]), tuple(found["relations"]), tuple(self._symmetric))
        docs = [example.predicted for _, example in zip(range(10), get_examples(), strict=False)]
        self.model.initialize(X=Batch(split_sentences(docs, by_sentence=self.by_sentence)))
        settings = {**self._codec_settings(), "seed": random.getrandbits(32)}
        reset_encoder(self.model)
        self._shim.bundle = new_triplet_network(encoder_width(self.model), schema, settings)
        self._check_training(get_examples(), nlp)

    def _check_training(self, examples: Iterable[Example], nlp: Language | None) -> None:
        """Warn of what the examples have that a network trained on them cannot find."""
        from .gold import gold_entities

        widest = self.bundle.network.backbone.max_span
        widths: Counter[bool] = Counter()
        has_sentences = False
        for example in examples:
            widths.update(len(span) > widest for span in gold_entities(example.reference, self.spans_key))
            has_sentences = has_sentences or example.predicted.has_annotation("SENT_START")
        if widths[True]:
            logger.warning(
                "%s: %d of %d entities are wider than model.backbone_settings.max_span, which is %d; they cannot be "
                "found.", self.name, widths[True], widths.total(), widest
            )  # fmt: skip
        if self.by_sentence and nlp is not None and not has_sentences and (setters := _sentence_setters(nlp)):
            logger.warning(
                "%s: the documents have no sentences to train on, but %r will set some; expected it among "
                "training.annotating_components.", self.name, setters[0]
            )  # fmt: skip

    def _codec_settings(self) -> dict[str, Any]:
        return cast(Any, self._shim.codec).settings

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from a batch: L = l_rte + alpha l_ent + beta l_rel, in ``losses`` as a sum and one by one.

        Gold entities are ``doc.spans[spans_key]`` of the references (else ``doc.spans["entities"]``, else
        ``doc.ents``), gold relations ``Doc._.relations``. ``drop`` has no effect: the network has its own dropout.
        """
        losses = {} if losses is None else losses
        examples = list(examples)
        validate_examples(examples, "GMoERTE.update")
        losses.setdefault(self.name, 0.0)
        sentences = split_sentences([example.predicted for example in examples], by_sentence=self.by_sentence)
        if not len(sentences):
            return losses
        if self.bundle.network.is_stripped:
            raise ValueError(f"{self.name!r} was stripped of its auxiliary networks; expected one that can be trained.")
        gold = self._gold(examples, sentences)
        terms, backprop = self.model.begin_update(Batch(sentences, gold))
        backprop(None)
        if sgd is not None:
            self.finish_update(sgd)
        losses[self.name] += sum(terms.values())
        for term, value in terms.items():
            key = f"{self.name}_{term}"
            losses[key] = losses.get(key, 0.0) + value
        return losses

    def _gold(self, examples: list[Example], sentences: Sentences) -> list["Extraction"]:
        from .gold import GoldReader

        reader = GoldReader(self.bundle.network.schema, self.spans_key)
        gold = reader(examples, sentences)
        for reason, count in reader.left_out.items():
            if count and reason not in self._said:
                self._said.add(reason)
                logger.warning("%s: there are %s in the training documents; they are not learnt.", self.name, reason)
        return gold

    def finish_update(self, sgd: Optimizer) -> None:
        """One step of the optimizer, with the gradients of its own networks clipped together.

        A tok2vec or transformer is clipped as spaCy does it, array by array.
        """
        if sgd.grad_clip:
            clip_gradients(self.model, sgd.grad_clip)
        self.model.finish_update(sgd)

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """The scores of the scorer, which is told where the entities are and which labels are symmetric."""
        if self.scorer is None:
            return {}
        return self.scorer(examples, spans_key=self.spans_key, symmetric=self.symmetric, **kwargs)

    # --- saving -----------------------------------------------------------------------------------------------

    def _write_model(self, folder: Path) -> None:
        write_folders(self.model, folder)

    def _read_model(self, folder: Path) -> None:
        read_folders(self.model, folder)

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SETTINGS}


def _sentence_setters(nlp: Language) -> list[str]:
    """The pipes that set sentences in prediction, but not in training."""
    training = nlp.config.get("training", {}).get("annotating_components") or ()
    return [
        name
        for name in nlp.pipe_names
        if name not in training and "token.is_sent_start" in nlp.get_pipe_meta(name).assigns
    ]


def _without_overlap(spans: Sequence[Span], probabilities: Sequence[float], taken: set[int]) -> list[Span]:
    """Of spans that overlap the most probable, none of them on a token that is ``taken``; ties go to the first."""
    kept = []
    for span, _ in sorted(zip(spans, probabilities, strict=True), key=lambda item: -item[1]):
        if taken.isdisjoint(range(span.start, span.end)):
            taken.update(range(span.start, span.end))
            kept.append(span)
    return kept


def _checked_labels(labels: Any) -> dict[str, list[str]]:
    """What ``initialize`` is given as labels, if it is what ``label_data`` gives."""
    expected = '{"entities": [...], "relations": [...]}'
    if not isinstance(labels, dict) or set(labels) != {"entities", "relations"}:
        raise ValueError(f"labels are {labels!r}; expected {expected}.")
    for name, values in labels.items():
        if not isinstance(values, (list, tuple)) or not values or not all(isinstance(v, str) and v for v in values):
            raise ValueError(f"labels[{name!r}] is {values!r}; expected a list of names.")
    return {name: list(values) for name, values in labels.items()}
