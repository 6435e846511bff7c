"""``gmoe_rte``: entities and the relations between them, found together by one trained network."""

# No postponed annotations here: spaCy reads the types of factories and of initialize at run time.

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from spacy import util
from spacy.language import Language
from spacy.tokens import Doc, Span, SpanGroup
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Config, Model, Optimizer

from ..labels import LabelsInput, RelationLabel, is_probability, is_whole_number, parse_labels, plain_labels
from ..relations import Relation, make_relation, require_extensions, sort_relations
from ..saved_pipe import SavedPipe
from ..saved_settings import SavedSettings
from ..streaming import annotate
from ..torch_wrapper import TorchShim, clip_gradients
from .architecture import (
    Batch,
    encoder_width,
    read_folders,
    reads_prompts,
    reset_encoder,
    triplet_shim,
    write_folders,
)
from .sentences import Sentences, split_sentences

if TYPE_CHECKING:
    from .checkpoint import TripletBundle
    from .features import Extraction
    from .schema import Schema

logger = logging.getLogger(__name__)

DEFAULTS: dict[str, Any] = Config().from_str("""
[gmoe_rte]
threshold = 0.5
labels = null
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


SETTINGS = ("threshold", "labels", "spans_key", "set_ents", "by_sentence", "batch_words")
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
    labels: list[str] | None,
    symmetric: list[str],
    spans_key: str,
    set_ents: bool,
    by_sentence: bool,
    batch_words: int,
    scorer: Callable | None,
) -> "GMoERTE":
    """The ``gmoe_rte`` component; see ``GMoERTE`` for its options."""
    if with_dollar := [label for label in labels or () if "$" in label]:
        raise ValueError(
            f"labels has {with_dollar[0]!r}, whose $ a spaCy config cannot hold; expected the labels given to "
            "set_labels of the component instead."
        )
    return GMoERTE(
        nlp.vocab,
        model,
        name,
        threshold=threshold,
        labels=labels,
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

    threshold: the least probability of a relation. labels: what to look for, with a backbone that is told ("re_cent"),
    in documents whose ``Doc._.relation_labels`` say nothing; by default the labels it was trained with, but they may be
    ones that it never saw (see ``set_labels``). symmetric: labels of which head and tail can be swapped, known to the
    network from ``initialize`` on. by_sentence: read sentence by sentence where the pipeline sets sentences; else, and
    where it does not, whole documents. batch_words: words that are read at once, one document at least.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str = "gmoe_rte",
        *,
        threshold: float = 0.5,
        labels: LabelsInput | None = None,
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
        self._labels = None if labels is None else _checked_wanted(labels)
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
        """The labels it looks for of which head and tail can be swapped; before ``initialize`` those of the config."""
        return self._schema_of().symmetric if self._shim.loaded else tuple(self._symmetric)

    @property
    def labels(self) -> tuple[str, ...]:
        """The relation labels that it looks for; none before ``initialize``."""
        return self._schema_of().relations if self._shim.loaded else tuple(self._labels or ())

    @property
    def takes_labels(self) -> bool:
        """Whether its backbone is told what to look for."""
        return self._shim.loaded and self.bundle.network.labels_at_once is not None

    def set_labels(self, labels: LabelsInput | None) -> None:
        """Look for other labels, or with None for those of the training.

        They are names, or by name ``{"symmetric": true}``, ``{"symmetric": false}`` or nothing: then as in training.
        Raises ``ValueError`` for another backbone than one that is told what to look for.
        """
        self._labels = None if labels is None else _checked_wanted(labels)
        if self._shim.loaded:
            self._check_labels()

    @property
    def entity_labels(self) -> tuple[str, ...]:
        """The entity types; none before ``initialize``."""
        return self.bundle.network.schema.entities if self._shim.loaded else ()

    @property
    def label_data(self) -> dict[str, list[str]]:
        """What ``spacy init labels`` writes and ``initialize`` reads."""
        relations = self.bundle.network.schema.relations if self._shim.loaded else ()
        return {"entities": list(self.entity_labels), "relations": list(relations)}

    @property
    def bundle(self) -> "TripletBundle":
        """The triplet network with its settings."""
        return self._shim.bundle

    @property
    def _shim(self) -> TorchShim:
        return triplet_shim(self.model)

    @property
    def _encoder(self) -> Any:
        """The network of an encoder of the component's own."""
        return cast(TorchShim, self.model.layers[0].shims[0]).bundle.network

    def _schema_of(self, doc: Doc | None = None) -> "Schema":
        """What to look for: of a document that says so, else the component's, else what it was trained with."""
        schema = self.bundle.network.schema
        if self.bundle.network.labels_at_once is None:
            return schema
        of_doc = None if doc is None else doc._.relation_labels
        if of_doc is None and self._labels is None:
            return schema
        labels = self._labels or {} if of_doc is None else _labels_of(of_doc)
        known = schema.symmetric
        symmetric = tuple(name for name, said in labels.items() if (name in known if said is None else said))
        return replace(schema, relations=tuple(labels), symmetric=symmetric)

    def _check_labels(self) -> None:
        """Raise ``ValueError`` for labels of its own to a network that only knows those of its training."""
        if self._labels is not None and self.bundle.network.labels_at_once is None:
            raise ValueError(
                f"labels are {list(self._labels)!r}; expected null, as model.backbone finds the labels it was trained "
                "with, or the backbone 're_cent'."
            )

    # --- prediction -------------------------------------------------------------------------------------------

    def predict(self, docs: Iterable[Doc]) -> list[list[tuple[int, "Extraction"]]]:
        """What is found in each document: for each sentence its first token, and entities and triplets."""
        _ = self.bundle  # without a network: its error, before the encoder is loaded
        self._check_labels()
        found: list[list[tuple[int, Extraction]]] = []
        for part in self._parts(docs):
            sentences = split_sentences(part, by_sentence=self.by_sentence)
            of_docs: list[list[tuple[int, Extraction]]] = [[] for _ in part]
            if len(sentences):
                extractions = self._extract(sentences)
                for doc, start, extraction in zip(sentences.owner, sentences.start, extractions, strict=True):
                    of_docs[doc].append((start, extraction))
            found += of_docs
        return found

    def _extract(self, sentences: Sentences) -> list["Extraction"]:
        """What is found in each sentence, labels as places among ``labels``."""
        at_once = self.bundle.network.labels_at_once
        if at_once is None:
            return self.model.predict(Batch(sentences, threshold=self._threshold))
        from .prompts import join_prompts, with_labels

        of_docs = [self._schema_of(doc) for doc in sentences.docs]
        schemas = [of_docs[doc] for doc in sentences.owner]
        rounds = {schema.relations: self._encoder.split_labels(schema.relations, at_once) for schema in of_docs}
        found: list[list[Extraction]] = [[] for _ in schemas]
        for places, asked in with_labels(sentences, [rounds[schema.relations] for schema in schemas]):
            extractions = self.model.predict(Batch(asked, threshold=self._threshold))
            for place, extraction in zip(places, extractions, strict=True):
                found[place].append(extraction)
        return [
            join_prompts(zip(rounds[schema.relations], parts, strict=True), schema)
            for parts, schema in zip(found, schemas, strict=True)
        ]

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
        schema = self._schema_of(doc) if found else None
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
        doc.spans[self.spans_key] = SpanGroup(doc, name=self.spans_key, spans=spans, attrs={"scores": probabilities})
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
        """How the experts listened to each other when they read ``doc`` (eq. 2), with the first labels of a prompt."""
        network = self.bundle.network
        sentences = split_sentences([doc], by_sentence=self.by_sentence)
        if network.mixture is None or not len(sentences):
            return Attention((), [])
        import torch

        from .features import Features

        if network.labels_at_once is not None:
            from .prompts import with_labels

            rounds = self._encoder.split_labels(self._schema_of(doc).relations, network.labels_at_once)
            if not rounds:
                return Attention((), [])
            _, sentences = next(with_labels(sentences, [rounds] * len(sentences)))
        network.eval()
        rows = torch.as_tensor(self.model.layers[0].predict(sentences), device=self._shim.device)
        features = Features(rows, sentences.lengths, sentences.prompt_sizes)
        words = np.nonzero(features.is_word)[0]
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
        self._check_labels()
        if self.bundle.network.labels_at_once is not None and not reads_prompts(self.model):
            raise ValueError(
                f"model.encoder of {self.name!r} reads no labels, which the backbone {settings['backbone']!r} needs; "
                "expected spacy_ie_moe.SentenceEncoder.v1 with prompts = true."
            )
        self._check_prompts(schema.relations)
        self._check_training(get_examples(), nlp)

    def _check_prompts(self, labels: Sequence[str]) -> None:
        """Raise ``ValueError`` where a prompt of the longest labels, which may be drawn in training, does not fit."""
        at_once = self.bundle.network.labels_at_once
        if at_once is None:
            return
        pieces = dict(zip(labels, map(len, self._encoder.pieces(labels)), strict=True))
        longest = sorted(labels, key=lambda label: pieces[label])[-at_once:]
        if len(self._encoder.split_labels(longest, at_once)) > 1:
            raise ValueError(
                f"model.backbone_settings.labels_at_once of {self.name!r} is {at_once}, but the {len(longest)} longest "
                "relation labels do not fit one prompt; expected fewer, or shorter labels."
            )

    def _check_training(self, examples: Iterable[Example], nlp: Language | None) -> None:
        """Warn of what the examples have that a network trained on them cannot find."""
        from .gold import gold_entities

        backbone = self.bundle.network.backbone
        widest = backbone.max_span
        widths: Counter[bool] = Counter()
        overlapping: Counter[bool] = Counter()
        shorter = 0
        has_sentences = False
        for example in examples:
            spans = list(gold_entities(example.reference, self.spans_key))
            widths.update(len(span) > widest for span in spans)
            longest = {(span.start, span.end) for span in util.filter_spans(spans)}
            overlapping.update(
                not longest.issuperset({tuple(relation["head_pos"]), tuple(relation["tail_pos"])})
                for relation in example.reference._.relations
            )
            shorter += len(spans) - len(longest)
            has_sentences = has_sentences or example.predicted.has_annotation("SENT_START")
        if widths[True]:
            logger.warning(
                "%s: %d of %d entities are wider than max_span of the backbone %r, which is %d; they cannot be found.",
                self.name, widths[True], widths.total(), self._codec_settings()["backbone"], widest
            )  # fmt: skip
        if shorter and backbone.loses:
            logger.warning(
                "%s: %d of %d entities overlap longer ones, and %d of %d relations need one of these; the backbone %r "
                "loses %s.", self.name, shorter, widths.total(), overlapping[True], overlapping.total(),
                self._codec_settings()["backbone"], backbone.loses
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
        if self.bundle.network.labels_at_once is not None:
            prompts, gold = self.bundle.network.draw_prompts(gold)
            sentences = replace(sentences, prompts=prompts)
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
        settings = {name: getattr(self, name) for name in SETTINGS}
        wanted = self._labels
        labels = None if wanted is None else {name: {"symmetric": said} for name, said in wanted.items()}
        return {**settings, "labels": labels}

    def _restore(self, settings: dict[str, Any]) -> None:
        if "labels" in settings:
            labels = settings.pop("labels")
            self._labels = None if labels is None else _checked_wanted(labels)
        super()._restore(settings)


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


def _checked_wanted(labels: Any) -> dict[str, bool | None]:
    """Labels to look for, and whether each is symmetric, which is all that can be said of them here; None if it is not.

    Where nothing is said, those are symmetric that were in training.
    """
    parsed = parse_labels(labels)
    for name, options in plain_labels(parsed).items():
        if more := set(options) - {"symmetric"}:
            raise ValueError(f"labels[{name!r}] has {min(more)!r}; expected no option but 'symmetric' here.")
    return _symmetry_of(labels, parsed)


def _labels_of(labels: Any) -> dict[str, bool | None]:
    """The same of ``doc._.relation_labels``, whose other options are for other components."""
    if isinstance(labels, (set, frozenset)):
        raise ValueError("doc._.relation_labels is a set, which cannot be saved; expected a list or a dict.")
    return _symmetry_of(labels, parse_labels(labels, where="doc._.relation_labels"))


def _symmetry_of(labels: Any, parsed: Iterable[RelationLabel]) -> dict[str, bool | None]:
    options = labels if isinstance(labels, Mapping) else {}
    return {label.name: (options.get(label.name) or {}).get("symmetric") for label in parsed}


def _checked_labels(labels: Any) -> dict[str, list[str]]:
    """What ``initialize`` is given as labels, if it is what ``label_data`` gives."""
    expected = '{"entities": [...], "relations": [...]}'
    if not isinstance(labels, dict) or set(labels) != {"entities", "relations"}:
        raise ValueError(f"labels are {labels!r}; expected {expected}.")
    for name, values in labels.items():
        if not isinstance(values, (list, tuple)) or not values or not all(isinstance(v, str) and v for v in values):
            raise ValueError(f"labels[{name!r}] is {values!r}; expected a list of names.")
    return {name: list(values) for name, values in labels.items()}
