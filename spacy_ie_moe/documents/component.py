"""``document_relations``: the relations of any pipeline, lifted from mentions to what they are mentions of."""

# No postponed annotations here: spaCy reads the types of factories at run time.

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from spacy import util
from spacy.language import Language
from spacy.pipeline import Pipe
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Config

from ..labels import is_names, is_probability
from ..relations import check_relation
from ..relations import require_extensions as require_relations
from ..saved_settings import SavedSettings
from .clusters import cluster_mentions
from .lifting import lift_relations
from .relations import require_extensions

DEFAULTS: dict[str, Any] = Config().from_str("""
[document_relations]
coref_prefix = "coref_clusters"
self_label = "SELF"
self_threshold = 0.5
symmetric = []

[document_relations.scorer]
@scorers = "spacy_ie_moe.document_relation_scorer.v1"
training_facts = null
""")["document_relations"]


@Language.factory(
    "document_relations",
    assigns=["doc._.document_relations", "doc._.mention_clusters", "doc._.relations_within_clusters"],
    requires=["doc._.relations"],
    default_config=DEFAULTS,
    default_score_weights={"doc_rel_f": 1.0, "doc_rel_ign_f": 0.0, "doc_rel_p": 0.0, "doc_rel_r": 0.0},
)
def make_document_relations(
    nlp: Language,
    name: str,
    coref_prefix: str | None,
    self_label: str | None,
    self_threshold: float,
    symmetric: list[str],
    scorer: Callable | None,
) -> "DocumentRelations":
    """The ``document_relations`` component; see ``DocumentRelations`` for its options."""
    return DocumentRelations(
        name,
        coref_prefix=coref_prefix,
        self_label=self_label,
        self_threshold=self_threshold,
        symmetric=symmetric,
        scorer=scorer,
    )


class DocumentRelations(Pipe):
    """Reads ``Doc._.relations`` and writes ``Doc._.mention_clusters`` and ``Doc._.document_relations``.

    coref_prefix: clusters are the groups of ``doc.spans`` with this name, ``_`` and a number, which a coreference pipe
    wrote before; None to ignore them. self_label, self_threshold: without such groups, relations of this label and at
    least this score join mentions to clusters; None for no such label, and then each mention is a cluster of its own.
    symmetric: labels of which head and tail can be swapped, so that two clusters have such a relation once.

    ``Doc._.relations_within_clusters`` counts the relations that join no two clusters, which become no document
    relation. See ``clusters.cluster_mentions`` and ``lifting.lift_relations``. Raises ``ValueError``, of a document,
    for relations that are none of it.
    """

    def __init__(
        self,
        name: str = "document_relations",
        *,
        coref_prefix: str | None = "coref_clusters",
        self_label: str | None = "SELF",
        self_threshold: float = 0.5,
        symmetric: Sequence[str] = (),
        scorer: Callable | None = None,
    ) -> None:
        require_relations()
        require_extensions()
        self.name = name
        self.scorer = scorer
        self.coref_prefix = coref_prefix
        self.self_label = self_label
        self.self_threshold = self_threshold
        self.symmetric = symmetric
        self._saved = SavedSettings(DEFAULTS, self._settings())

    # --- settings ---------------------------------------------------------------------------------------------

    @property
    def coref_prefix(self) -> str | None:
        """The name of the span groups that are clusters, without ``_`` and number; None to ignore them."""
        return self._coref_prefix

    @coref_prefix.setter
    def coref_prefix(self, value: str | None) -> None:
        self._coref_prefix = _checked_name("coref_prefix", value)

    @property
    def self_label(self) -> str | None:
        """The label, exactly as written, that says that two mentions are the same; None for no such label."""
        return self._self_label

    @self_label.setter
    def self_label(self, value: str | None) -> None:
        self._self_label = _checked_name("self_label", value)

    @property
    def self_threshold(self) -> float:
        """The least score of a ``self_label`` that joins two mentions."""
        return self._self_threshold

    @self_threshold.setter
    def self_threshold(self, value: float) -> None:
        if not is_probability(value):
            raise ValueError(f"self_threshold is {value!r}; expected a number from 0 to 1.")
        self._self_threshold = float(value)

    @property
    def symmetric(self) -> tuple[str, ...]:
        """Labels of which head and tail can be swapped."""
        return self._symmetric

    @symmetric.setter
    def symmetric(self, value: Sequence[str]) -> None:
        if not is_names(value):
            raise ValueError(f"symmetric is {value!r}; expected a list of labels.")
        self._symmetric = tuple(value)

    def _settings(self) -> dict[str, Any]:
        """What can be changed after the component is made, as JSON can hold it."""
        return {
            "coref_prefix": self.coref_prefix,
            "self_label": self.self_label,
            "self_threshold": self.self_threshold,
            "symmetric": list(self.symmetric),
        }

    # --- prediction -------------------------------------------------------------------------------------------

    def __call__(self, doc: Doc) -> Doc:
        """Write the clusters of a document and the relations between them."""
        relations = doc._.relations
        for relation in relations:
            check_relation(doc, relation)
        clustering = cluster_mentions(
            doc,
            relations,
            coref_prefix=self.coref_prefix,
            self_label=self.self_label,
            self_threshold=self.self_threshold,
        )
        lifted, within = lift_relations(
            doc, relations, clustering, self_label=self.self_label, symmetric=frozenset(self.symmetric)
        )
        doc._.mention_clusters = [[[*mention] for mention in cluster] for cluster in clustering.clusters]
        doc._.document_relations = lifted
        doc._.relations_within_clusters = within
        return doc

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """The scores of the scorer, which is told which labels are symmetric."""
        return {} if self.scorer is None else self.scorer(examples, symmetric=self.symmetric, **kwargs)

    # --- saving -----------------------------------------------------------------------------------------------

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write the settings."""
        util.to_disk(path, {"cfg": self._write}, exclude)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "DocumentRelations":
        """Read what ``to_disk`` wrote."""
        util.from_disk(path, {"cfg": lambda p: self._restore(p.read_text("utf8"))}, exclude)
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """The settings."""
        return util.to_bytes({"cfg": lambda: self._saved.write(self._settings()).encode("utf8")}, exclude)

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> "DocumentRelations":
        """Read what ``to_bytes`` wrote."""
        util.from_bytes(bytes_data, {"cfg": lambda b: self._restore(b.decode("utf8"))}, exclude)
        return self

    def _write(self, path: Path) -> None:
        path.write_text(self._saved.write(self._settings()), "utf8")

    def _restore(self, text: str) -> None:
        for name, value in self._saved.read(text).items():
            setattr(self, name, value)


def _checked_name(field: str, value: str | None) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise ValueError(f"{field} is {value!r}; expected a non-empty string, or None.")
    return value
