"""``glirel``: zero-shot relations between the entities of any pipeline, labels chosen at call time."""

# No postponed annotations here: spaCy reads the types of factories and of initialize at run time.

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Config, Model, Optimizer

from ..labels import (
    LabelsInput,
    RelationLabel,
    inverse_names,
    is_probability,
    is_whole_number,
    parse_labels,
    plain_labels,
)
from ..relations import Relation, require_extensions
from ..saved_pipe import SavedPipe
from ..saved_settings import SavedSettings
from ..streaming import annotate
from ..torch_wrapper import TorchShim
from .candidates import find_spans
from .plan import DocumentPlan, Planner, batch_by_size

if TYPE_CHECKING:
    from .checkpoint import Bundle

logger = logging.getLogger(__name__)

READ_AHEAD = 256
"""Documents that ``pipe`` reads before it yields: enough to sort by length, few enough to stay lazy."""

READ_AHEAD_PAIRS = 2**16
"""Pairs of entities after which it reads no further: each may become many relations, held until their turn."""

DEFAULTS: dict[str, Any] = Config().from_str("""
[glirel]
labels = null
threshold = 0.5
top_k = 1
max_pair_distance = null
span_groups = []
batch_pieces = 1024

[glirel.sampling]
max_labels = 25
batch_labels = null
shuffle = true
drop = true
max_negatives = null
symmetric = []

[glirel.loss]
bce = 1.0
positive_weight = 2.0
reduction = "sum"
ranking = 0.0
direction = 0.0

[glirel.scorer]
@scorers = "spacy_ie_moe.relation_scorer.v1"

[glirel.model]
@architectures = "spacy_ie_moe.GLiREL.v1"
checkpoint = "glirel-mini"
revision = null
precision = "float32"
device = null
""")["glirel"]


@Language.factory(
    "glirel",
    assigns=["doc._.relations"],
    requires=["doc.ents"],
    default_config=DEFAULTS,
    default_score_weights={"rel_micro_f": 1.0, "rel_macro_f": 0.0, "rel_micro_p": 0.0, "rel_micro_r": 0.0},
)
def make_glirel(
    nlp: Language,
    name: str,
    model: Model,
    labels: list[str] | dict[str, dict[str, Any] | None] | None,
    threshold: float,
    top_k: int | None,
    max_pair_distance: int | None,
    span_groups: list[str],
    batch_pieces: int,
    sampling: dict[str, Any],
    loss: dict[str, Any],
    scorer: Callable | None,
) -> "Glirel":
    """The ``glirel`` component; see ``Glirel`` for its options."""
    for text in _texts(labels or ()):
        if "$" in text:
            raise ValueError(
                f"labels has {text!r}, whose $ a spaCy config cannot hold; expected the labels given to set_labels of "
                "the component instead."
            )
    for label in labels if isinstance(labels, dict) else ():
        if isinstance(label, str) and not _fits_config(label):
            raise ValueError(
                f"labels has the name {label!r}, which a spaCy config cannot hold as a key; expected a list of names, "
                "or the labels given to set_labels of the component."
            )
    return Glirel(
        nlp.vocab,
        model,
        name,
        labels=labels,
        threshold=threshold,
        top_k=top_k,
        max_pair_distance=max_pair_distance,
        span_groups=span_groups,
        batch_pieces=batch_pieces,
        sampling=sampling,
        loss=loss,
        scorer=scorer,
    )


def _fits_config(name: str) -> bool:
    """Whether a spaCy config, which is an INI file, gives a key back as it was."""
    return name == name.strip() and name[:1] not in "#;" and not set(name) & set(".:=\n\r[]")


def _texts(value: Any) -> Iterator[str]:
    """All strings in nested lists and dicts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


class Glirel(SavedPipe):
    """Scores relation labels on ordered pairs of entities and writes those kept to ``Doc._.relations``.

    Relations that were there before are replaced, as spaCy's own components replace what they set.

    labels: names, or name to options (see ``RelationLabel``); None: the checkpoint's own. A document's
    ``doc._.relation_labels`` or the context ``{"glirel_labels": ...}`` of ``nlp.pipe(..., as_tuples=True)``
    replace them. threshold: the least probability of a relation. top_k: labels per ordered pair, None for all.
    max_pair_distance: the most tokens between the starts of head and tail. span_groups: names of ``doc.spans``
    to take entities from instead of ``doc.ents``. batch_pieces: pieces, padding included, that the encoder reads
    at once. sampling, loss: how it is trained; options of ``training.Sampling`` and ``training.Loss``.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str = "glirel",
        *,
        labels: LabelsInput | None = None,
        threshold: float = 0.5,
        top_k: int | None = 1,
        max_pair_distance: int | None = None,
        span_groups: Sequence[str] = (),
        batch_pieces: int = 1024,
        sampling: Mapping[str, Any] | None = None,
        loss: Mapping[str, Any] | None = None,
        scorer: Callable | None = None,
    ) -> None:
        require_extensions()
        self.vocab = vocab
        self.model = model
        self.name = name
        self.scorer = scorer
        self.unscored_pairs = 0
        self.set_labels(labels)
        self.threshold = threshold
        self.top_k = top_k
        self.max_pair_distance = max_pair_distance
        self.span_groups = list(span_groups)
        if _checked_limit("batch_pieces", batch_pieces, least=1) is None:
            raise ValueError("batch_pieces is None; expected a whole number of at least 1.")
        self.batch_pieces = batch_pieces
        self.sampling = dict(sampling or {})
        self.loss = dict(loss or {})
        self._saved = SavedSettings(DEFAULTS, self._settings())
        self._rng = random.Random(0)
        self._teacher: Any = None
        self._said: set[str] = set()

    # --- settings ---------------------------------------------------------------------------------------------

    def set_labels(self, labels: LabelsInput | None) -> None:
        """Replace the labels, in any form that the config takes."""
        self._labels = None if labels is None else parse_labels(labels)

    @property
    def threshold(self) -> float:
        """The least probability of a relation, where its label has none of its own."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._threshold = _checked_threshold(value)

    @property
    def top_k(self) -> int | None:
        """How many labels an ordered pair may have; None for any number."""
        return self._top_k

    @top_k.setter
    def top_k(self, value: int | None) -> None:
        self._top_k = _checked_limit("top_k", value, least=1)

    @property
    def max_pair_distance(self) -> int | None:
        """The most tokens between the starts of head and tail; None for any number."""
        return self._max_pair_distance

    @max_pair_distance.setter
    def max_pair_distance(self, value: int | None) -> None:
        self._max_pair_distance = _checked_limit("max_pair_distance", value, least=0)

    def _settings(self) -> dict[str, Any]:
        """What can be changed after the component is made, as JSON can hold it."""
        return {
            "labels": None if self._labels is None else plain_labels(self._labels),
            "threshold": self.threshold,
            "top_k": self.top_k,
            "max_pair_distance": self.max_pair_distance,
            "span_groups": list(self.span_groups),
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels that apply where a document brings none.

        spaCy reads this for ``nlp.meta``, so it never loads a network: of one not loaded yet there are none.
        """
        return tuple(label.name for label in self.default_labels)

    @property
    def default_labels(self) -> list[RelationLabel]:
        """The labels that apply where a document brings none, with their options; see ``labels``."""
        if self._labels is not None:
            return self._labels
        return parse_labels(self._shim.loaded.labels) if self._shim.loaded else []

    @property
    def label_data(self) -> tuple[str, ...]:
        """What ``spacy init labels`` writes and ``initialize`` reads."""
        return tuple(self.bundle.labels)

    @property
    def bundle(self) -> "Bundle":
        """The network with its settings."""
        return self._shim.bundle

    @property
    def _shim(self) -> TorchShim:
        return cast(TorchShim, self.model.shims[0])

    def _labels_of(self, doc: Doc) -> list[RelationLabel]:
        """The labels of a document: its own, those of its context, the component's, the checkpoint's."""
        if doc._.relation_labels is not None:
            if isinstance(doc._.relation_labels, (set, frozenset)):
                raise ValueError("doc._.relation_labels is a set, which cannot be saved; expected a list or a dict.")
            return parse_labels(doc._.relation_labels, where="doc._.relation_labels")
        context = getattr(doc, "_context", None)
        if isinstance(context, Mapping) and context.get("glirel_labels") is not None:
            return parse_labels(context["glirel_labels"], where="glirel_labels of the context")
        if self._labels is not None:
            return self._labels
        labels = parse_labels(self.bundle.labels)
        if not labels:
            raise ValueError(
                f"labels of {self.name!r} are None and its checkpoint has no label set; expected labels in the "
                "config, in doc._.relation_labels or in the context as glirel_labels."
            )
        names = ", ".join(label.name for label in labels[:5])
        self._say(f"{self.name}: no labels given, so the {len(labels)} of the checkpoint apply ({names}, ...).")
        return labels

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning(message)

    # --- prediction -------------------------------------------------------------------------------------------

    def predict(self, docs: Iterable[Doc]) -> list[tuple[list[Relation], int]]:
        """The relations of each document, and how many of its pairs no window can hold."""
        plans = [self._plan(doc) for doc in docs]
        jobs = [job for plan in plans if plan is not None for job in plan.jobs]
        for batch in batch_by_size(jobs, self.batch_pieces):
            for job, selected in zip(batch, self.model.predict([job.window for job in batch]), strict=True):
                job.selected = selected
        return [([], 0) if plan is None else (plan.relations(self._top_k), plan.unscored) for plan in plans]

    def _plan(self, doc: Doc) -> DocumentPlan | None:
        """What has to be scored for a document; None if there is nothing."""
        planner = Planner(self.span_groups, self.max_pair_distance)
        candidates = planner.candidates(doc)
        if len(candidates) < 2:
            return None
        labels = self._labels_of(doc)
        if not labels:
            return None
        return planner.plan(doc, candidates, labels, self.bundle.network, self._threshold, self._top_k)

    def set_annotations(self, docs: Iterable[Doc], scores: list[tuple[list[Relation], int]]) -> None:
        """Write the relations of ``predict`` to the documents."""
        for doc, (relations, unscored) in zip(docs, scores, strict=True):
            doc._.relations = relations
            doc._.unscored_pairs = unscored
            if unscored:
                self.unscored_pairs += unscored
                self._say(
                    f"{self.name}: some pairs of entities are too far apart for the encoder and are not scored; "
                    "doc._.unscored_pairs counts them."
                )

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Process a stream in order, reading at most ``batch_size`` documents ahead (256 at most, and
        fewer where they have many entities).

        If a batch fails its documents are tried one by one, so that one bad document costs no other.
        """
        documents = iter(stream)
        while docs := self._read_ahead(documents, min(batch_size, READ_AHEAD)):
            yield from annotate(self, docs)

    def _read_ahead(self, documents: Iterator[Doc], limit: int) -> list[Doc]:
        """The next documents: at most ``limit``, fewer where they have many entities."""
        docs: list[Doc] = []
        pairs = 0
        while len(docs) < limit and pairs < READ_AHEAD_PAIRS:
            doc = next(documents, None)
            if doc is None:
                break
            docs.append(doc)
            pairs += len(find_spans(doc, self.span_groups)) ** 2
        return docs

    # --- training ---------------------------------------------------------------------------------------------

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Collect the labels to train on from the examples (or take ``labels``) and load the network."""
        validate_get_examples(get_examples, "Glirel.initialize")
        if labels is None:
            labels = sorted({r["label"] for eg in get_examples() for r in eg.reference._.relations})
        if not labels:
            raise ValueError("the training documents have no Doc._.relations; expected some to learn labels from.")
        self.bundle.labels = list(labels)
        self._rng = random.Random(random.getrandbits(32))
        self._teacher = self._make_teacher()

    def _make_teacher(self) -> Any:
        from .teaching import Teacher

        return Teacher(self.sampling, self.loss, self.bundle.labels, self._rng)

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from a batch. Gold relations are ``Doc._.relations`` of the references; all pairs of their
        entities without one are negatives. Dropout is the network's own setting, so ``drop`` has no effect."""
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, "Glirel.update")
        if self._teacher is None:  # resumed from a saved pipeline, without initialize
            self._teacher = self._make_teacher()
        lesson = self._teacher.prepare(
            [eg.reference for eg in examples], self.bundle.network, Planner(self.span_groups, self.max_pair_distance)
        )
        if not lesson.windows:
            return losses
        logits, backprop = self.model.begin_update(lesson.windows)
        loss, gradients = self._teacher.get_loss(lesson, logits)
        backprop(gradients)
        if sgd is not None:
            self.finish_update(sgd)
        losses[self.name] += loss
        return losses

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """The scores of the scorer, which is told which labels are symmetric or each other's inverse."""
        if self.scorer is None:
            return {}
        labels = self.default_labels
        symmetric = [label.name for label in labels if label.symmetric]
        return self.scorer(examples, symmetric=symmetric, inverse=inverse_names(labels), **kwargs)

    # --- saving -----------------------------------------------------------------------------------------------

    def _write_model(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for name, content in self._shim.codec.to_files(self.bundle).items():
            (folder / name).write_bytes(content)

    def _read_model(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"{self.name!r} has no model in {folder}; expected what to_disk writes.")
        self._shim.bundle = self._shim.codec.from_folder(folder)

    def _restore(self, settings: dict[str, Any]) -> None:
        if "labels" in settings:
            self.set_labels(settings.pop("labels"))
        super()._restore(settings)


def _checked_threshold(value: Any) -> float:
    if not is_probability(value):
        raise ValueError(f"threshold is {value!r}; expected a number from 0 to 1.")
    return float(value)


def _checked_limit(name: str, value: Any, *, least: int) -> int | None:
    if value is not None and not is_whole_number(value, least):
        raise ValueError(f"{name} is {value!r}; expected a whole number of at least {least}, or None.")
    return value
