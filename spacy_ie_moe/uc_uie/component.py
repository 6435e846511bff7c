"""``uc_uie``: entities, relations, events and opinions by one language model that writes frames."""

# No postponed annotations here: spaCy reads the types of factories and of initialize at run time.

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from spacy import util
from spacy.language import Language
from spacy.tokens import Doc, SpanGroup
from spacy.training import Example, validate_examples
from spacy.util import filter_spans
from spacy.vocab import Vocab
from thinc.api import Config, Model, Optimizer

from ..labels import is_probability, is_whole_number
from ..relations import require_extensions
from ..saved_pipe import SavedPipe
from ..saved_settings import SavedSettings
from ..streaming import annotate
from ..torch_wrapper import TorchShim
from .doc_frames import DocFrame, require_frame_extensions, sort_frames, to_entities, to_relations, to_strings
from .frames import Issue, Schema
from .lessons import Lesson, LessonSettings
from .lm import has_gates, longest_text, router_of

if TYPE_CHECKING:
    from .checkpoint import LMBundle
    from .constraints import Grammar
    from .gold import LessonMaker

logger = logging.getLogger(__name__)

DEFAULTS: dict[str, Any] = Config().from_str("""
[uc_uie]
schema = {}
types_at_once = 12
constrained = false
beams = 1
max_new_tokens = 256
text_tokens = 256
batch_tokens = 4096
routes = null
spans_key = "uc_uie"
set_ents = true
warming_steps = 0
seed = 0

[uc_uie.lessons]

[uc_uie.scorer]
@scorers = "spacy_ie_moe.frame_scorer.v1"

[uc_uie.model]
@architectures = "spacy_ie_moe.UCUIE.v1"
base = "uie-mini"
revision = null
adapter = "uie-mini"
adapter_revision = null
adapter_settings = {}
precision = "float32"
save_base = true
gamma = 0.1
beta = 0.1
mixed_precision = false
gradient_checkpointing = false
device = null
""")["uc_uie"]

SETTINGS = (
    "types_at_once",
    "constrained",
    "beams",
    "max_new_tokens",
    "text_tokens",
    "batch_tokens",
    "routes",
    "spans_key",
    "set_ents",
)
"""What can be changed after the component is made, beside the schema."""

_COUNTS = ("types_at_once", "beams", "max_new_tokens", "text_tokens", "batch_tokens")


@Language.factory(
    "uc_uie",
    assigns=["doc._.frames", "doc._.uie_issues", "doc._.relations", "doc.spans", "doc.ents"],
    default_config=DEFAULTS,
    default_score_weights={"uie_f": 1.0},
)
def make_uc_uie(
    nlp: Language,
    name: str,
    model: Model,
    schema: Any,
    types_at_once: int,
    constrained: bool,
    beams: int,
    max_new_tokens: int,
    text_tokens: int,
    batch_tokens: int,
    routes: Sequence[float] | None,
    spans_key: str,
    set_ents: bool,
    warming_steps: int,
    seed: int,
    lessons: dict[str, Any],
    scorer: Callable | None,
) -> "UCUIE":
    """The ``uc_uie`` component; see ``UCUIE`` for its options."""
    if isinstance(schema, dict) and (odd := [name for name, value in schema.items() if _is_odd(name, value)]):
        raise ValueError(
            f"schema has the type {odd[0]!r}, a name that config files cannot have as a key; expected such types in "
            f"a list, [{{'name': ..., 'slots': [...]}}], or in a JSON file."
        )
    return UCUIE(
        nlp.vocab,
        model,
        name,
        schema=schema,
        types_at_once=types_at_once,
        constrained=constrained,
        beams=beams,
        max_new_tokens=max_new_tokens,
        text_tokens=text_tokens,
        batch_tokens=batch_tokens,
        routes=routes,
        spans_key=spans_key,
        set_ents=set_ents,
        warming_steps=warming_steps,
        seed=seed,
        lessons=lessons,
        scorer=scorer,
    )


def _is_odd(name: str, value: Any) -> bool:
    """Whether a config file would read a key of a schema as something else."""
    return ":" in name or "=" in name or name.startswith("@") or ("." in name and isinstance(value, dict))


class Question(NamedTuple):
    """Something to ask of a part of a document: a task and the types of it that are asked for at once.

    given: the events whose arguments are asked for (EAE), without slots.
    """

    doc: int
    window: Any
    task: str
    schema: Schema
    given: list[DocFrame]


class Routing(NamedTuple):
    """How a question about a document is routed through the adapted layers, from the first to the last.

    task, types: what is asked. gates: [layers, 3], the weights of judging, locating and associating. sub_experts: by
    capability [layers, Q], the mean weights of its sub-experts over the tokens; they sum to 1.
    """

    task: str
    types: tuple[str, ...]
    gates: np.ndarray
    sub_experts: dict[str, np.ndarray]


class Findings(NamedTuple):
    """What was found in a document: frames as ``Doc._.frames`` has them, issues, and what was asked, by task."""

    frames: list[DocFrame]
    issues: list[Issue]
    asked: dict[str, Schema]


class UCUIE(SavedPipe):
    """Extracts the frames of a schema with a causal language model: UC-UIE.

    Writes ``Doc._.frames``, ``Doc._.uie_issues`` (what the model wrote that had to be left out); where entities are
    asked for, ``doc.spans[spans_key]`` and, if ``set_ents``, ``doc.ents``; where relations are, ``Doc._.relations``.
    What was there before is replaced. Of ``EAE``, the arguments of given events, ``Doc._.frames`` holds the events.

    schema: frame types and their slots, as ``Schema.of`` takes them; ``Doc._.uie_schema`` of a document goes before
    it, and ``Doc._.uie_task`` before the tasks that follow from the slots. types_at_once: a larger schema is asked for
    in parts. constrained: write nothing but types of the schema and words of the text (needs llguidance). beams: 1 is
    greedy. max_new_tokens: where an answer is cut off. text_tokens: of a text that is read at once; longer ones are
    read in overlapping windows. batch_tokens: prompts that are read at once have at most so many tokens together.
    routes: gates of judging, locating and associating in place of the router's, such as [1, 1, 0] without associating.

    In training: warming_steps: so many steps of the optimizer at the start learn single capabilities (stage 1).
    lessons: options of ``LessonSettings``. seed: of the lessons.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str = "uc_uie",
        *,
        schema: Any = None,
        types_at_once: int = 12,
        constrained: bool = False,
        beams: int = 1,
        max_new_tokens: int = 256,
        text_tokens: int = 256,
        batch_tokens: int = 4096,
        routes: Sequence[float] | None = None,
        spans_key: str = "uc_uie",
        set_ents: bool = True,
        warming_steps: int = 0,
        seed: int = 0,
        lessons: dict[str, Any] | None = None,
        scorer: Callable | None = None,
    ) -> None:
        require_extensions()
        require_frame_extensions()
        self.vocab = vocab
        self.model = model
        self.name = name
        self.scorer = scorer
        self.schema = schema or None
        self.types_at_once = types_at_once
        self.constrained = constrained
        self.beams = beams
        self.max_new_tokens = max_new_tokens
        self.text_tokens = text_tokens
        self.batch_tokens = batch_tokens
        self.routes = routes
        self.spans_key = spans_key
        self.set_ents = set_ents
        if not is_whole_number(warming_steps, 0):
            raise ValueError(f"warming_steps is {warming_steps!r}; expected a whole number of at least 0.")
        self._warming_steps = warming_steps
        self._lesson_settings = _lesson_settings(lessons or {})
        self._learnt: Counter[str] = Counter()
        self._seed = seed
        self._updates = 0
        self._steps = 0
        self._said_too_long = False
        self._said_no_schema = False
        self._tokens_since_step = 0
        self._accelerator: Any = None
        self._saved = SavedSettings(DEFAULTS, self._settings())

    # --- settings ---------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _COUNTS and not is_whole_number(value, 1):
            raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1.")
        if name == "routes" and value is not None:
            value = _checked_routes(value)
        super().__setattr__(name, value)

    @property
    def schema(self) -> Schema | None:
        """The types to look for; None where every document has its own."""
        return self._schema

    @schema.setter
    def schema(self, value: Any) -> None:
        self._schema = None if value is None else Schema.of(value)

    @property
    def labels(self) -> tuple[str, ...]:
        """The frame types of the schema."""
        return () if self._schema is None else self._schema.names

    @property
    def bundle(self) -> "LMBundle":
        """The language model with its adapter."""
        return self._shim.bundle

    @property
    def _hard(self) -> bool:
        """Whether the capabilities of a task are its gates (UC-UIE^h)."""
        return router_of(self.bundle.network.model) == "hard"

    def _routes(self, task: str) -> tuple[float, ...] | None:
        """The gates of a task; None: the router's."""
        from .instructions import HARD_ROUTES

        if self.routes is None:
            return HARD_ROUTES[task] if self._hard else None
        if not has_gates(self.bundle.network.model):
            raise ValueError(
                f"routes is {self.routes!r}, but the model has no gates; expected None, or a mixture of experts with a "
                f"soft or hard router."
            )
        return tuple(self.routes)

    @property
    def _shim(self) -> TorchShim:
        return cast(TorchShim, self.model.shims[0])

    # --- prediction -------------------------------------------------------------------------------------------

    def predict(self, docs: Iterable[Doc]) -> list[Findings]:
        """What the model finds in each document."""
        from .decoding import Request
        from .instructions import build

        docs = list(docs)
        questions = [question for row, doc in enumerate(docs) for question in self._questions(row, doc)]
        by_instruction: dict[tuple[str, Schema], list[Question]] = {}
        for question in questions:
            by_instruction.setdefault((question.task, question.schema), []).append(question)
        frames: list[list[tuple[Any, DocFrame]]] = [[] for _ in docs]
        issues: list[list[Issue]] = [[] for _ in docs]
        for (task, schema), group in by_instruction.items():
            request = Request(
                instruction=build(task, schema),
                bodies=[self._body(docs[question.doc], question) for question in group],
                grammars=[self._grammar(docs[question.doc], question) for question in group]
                if self.constrained
                else None,
                routes=self._routes(task),
                max_new_tokens=self.max_new_tokens,
                beams=self.beams,
                batch_tokens=self.batch_tokens,
            )
            for question, answer in zip(group, self.model.predict(request), strict=True):
                found, left_out = self._read(docs[question.doc], question, answer)
                frames[question.doc] += [(question.window, frame) for frame in found]
                issues[question.doc] += left_out
        return [self._findings(doc, frames[row], issues[row]) for row, doc in enumerate(docs)]

    def _questions(self, row: int, doc: Doc) -> Iterator[Question]:
        from .gold import given_events
        from .windows import make_windows

        asked = self._asked(doc)
        if not asked or not len(doc):
            return
        windows = make_windows(doc, self.bundle.network.prompter, self.text_tokens)
        for task, types in asked.items():
            for part in self._parts(types):
                for window in windows:
                    given = given_events(doc, window, part) if task == "EAE" else []
                    if given or task != "EAE":
                        yield Question(row, window, task, part, given)

    def _parts(self, types: Schema) -> Iterator[Schema]:
        """The types of a task in parts that are asked for at once."""
        for first in range(0, len(types), self.types_at_once):
            yield types.only(types.names[first : first + self.types_at_once])

    def _asked(self, doc: Doc) -> dict[str, Schema]:
        """What is asked of a document, by task."""
        schema = self._schema_of(doc)
        if schema is None:
            return {}
        return {doc._.uie_task: schema.for_task(doc._.uie_task)} if doc._.uie_task else schema.by_task()

    def _schema_of(self, doc: Doc) -> Schema | None:
        if doc._.uie_schema is not None:
            return Schema.of(doc._.uie_schema)
        if self._schema is None and not self._said_no_schema:
            self._said_no_schema = True
            logger.warning("%s: neither the component nor a document has a schema; nothing is looked for.", self.name)
        return self._schema

    def _body(self, doc: Doc, question: Question) -> str:
        from .instructions import body
        from .windows import text_of

        return body(text_of(doc, question.window).text, to_strings(doc, question.given))

    def _grammar(self, doc: Doc, question: Question) -> "Grammar":
        from .constraints import make_grammar
        from .windows import text_of

        return make_grammar(question.schema, text_of(doc, question.window).text, task=question.task)

    def _read(self, doc: Doc, question: Question, answer: Any) -> tuple[list[DocFrame], list[Issue]]:
        from .gold import known_places
        from .reading import read_answer

        known = known_places(doc, question.window, question.given)
        return read_answer(doc, question.window, answer, question.schema, known)

    def _findings(self, doc: Doc, frames: list[tuple[Any, DocFrame]], issues: list[Issue]) -> Findings:
        from .reading import attach
        from .windows import merge_frames

        merged = merge_frames(frames)
        asked = self._asked(doc)
        if "EAE" in asked:
            given: dict[bool, list[DocFrame]] = {True: [], False: []}
            for frame in doc._.frames:
                given[frame["type"] in asked["EAE"] and frame["pos"] is not None].append(frame)
            found_anew = {kind.name for task, schema in asked.items() if task != "EAE" for kind in schema}
            events, others = attach(given[True], [frame for frame in merged if frame["type"] not in found_anew])
            left_alone = [frame for frame in given[False] if frame["type"] not in found_anew]
            anew = [frame for frame in merged if frame["type"] in found_anew]
            merged = sort_frames([*events, *left_alone, *anew])
            issues = [*issues, *others]
        return Findings(merged, issues, asked)

    def set_annotations(self, docs: Iterable[Doc], scores: list[Findings]) -> None:
        """Write what ``predict`` found to the documents."""
        from .reading import as_data

        for doc, found in zip(docs, scores, strict=True):
            if not found.asked:
                continue
            doc._.frames = found.frames
            doc._.uie_issues = as_data(found.issues)
            types = [kind for schema in found.asked.values() for kind in schema]
            if "NER" in found.asked:
                entities = to_entities(doc, found.frames, types)
                doc.spans[self.spans_key] = SpanGroup(doc, name=self.spans_key, spans=entities)
                if self.set_ents:
                    doc.set_ents(filter_spans(entities))
            if "RE" in found.asked:
                doc._.relations = to_relations(doc, found.frames, types)

    def routing(self, doc: Doc) -> list[Routing]:
        """What each capability has to do with ``doc``: for each question that is asked of it how it is routed."""
        from .instructions import build

        network = self.bundle.network
        network.eval()
        routings = []
        for question in self._questions(0, doc):
            routes = self._routes(question.task)
            instruction, body = build(question.task, question.schema), self._body(doc, question)
            gates, weights = network.routing(instruction, body, routes)
            sub_experts = {name: values.cpu().numpy() for name, values in weights.items()}
            routings.append(Routing(question.task, question.schema.names, gates.cpu().numpy(), sub_experts))
        return routings

    def specialise(self) -> ExitStack:
        """Serve the schema with its gates folded into the weights, until what is returned is closed.

        A context manager. Nothing but this schema can be asked for meanwhile, and nothing be learnt. Raises
        ``ValueError`` for a schema that is asked for in several parts, and for a model without gates.
        """
        from .instructions import build

        tasks = {} if self._schema is None else self._schema.by_task()
        parts = [(task, part) for task, types in tasks.items() for part in self._parts(types)]
        if len(parts) != 1:
            raise ValueError(f"the schema is asked for in {len(parts)} parts; expected one: see types_at_once.")
        ((task, types),) = parts
        network = self.bundle.network.eval()
        return network.decoder.specialise(build(task, types), self._routes(task))

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 32) -> Iterator[Doc]:
        """Process a stream in order; if a batch fails its documents are tried one by one."""
        for docs in util.minibatch(stream, size=batch_size):
            yield from annotate(self, docs)

    # --- training ---------------------------------------------------------------------------------------------

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]] | None = None,
        *,
        nlp: Language | None = None,
    ) -> None:
        """Load the base that the config names, with its adapter. Labels need not be known: documents bring them."""
        self._updates = 0
        self._steps = 0
        self._learnt.clear()
        self._shim.reset()
        _ = self._shim.bundle

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from a batch: L_task + gamma L_bce + beta L_entropy (eq. 10), in ``losses`` as a sum and one by one.

        Gold are ``Doc._.frames`` of the references (else their entities and relations) for ``Doc._.uie_task``. The
        first ``warming_steps`` steps learn one capability from each document. ``drop`` has no effect.
        """
        from .network import LessonBatch

        losses = {} if losses is None else losses
        examples = list(examples)
        validate_examples(examples, "UCUIE.update")
        losses.setdefault(self.name, 0.0)
        warming = self._steps < self._warming_steps
        lessons = self._lessons(examples, warming=warming)
        if self._accelerator is not None:  # drawn by all alike, so that the lessons are those of one process
            lessons = lessons[self._accelerator.process_index :: self._accelerator.num_processes]
        self._updates += 1
        self._tokens_since_step += sum(len(lesson.target) for lesson in lessons)
        terms: dict[str, float] = {}
        if lessons:
            terms, backprop = self.model.begin_update(LessonBatch(lessons, forced=warming or self._hard))
            backprop(None)
        if sgd is not None:
            self.finish_update(sgd)
        losses[self.name] += sum(terms.values())
        for term, value in terms.items():
            key = f"{self.name}_{term}"
            losses[key] = losses.get(key, 0.0) + value
        return losses

    def _lessons(self, examples: list[Example], *, warming: bool) -> list[Any]:
        maker = self._lesson_maker()
        rng = random.Random(f"{self._seed}/{self._updates}")
        lessons = []
        for example in examples:
            schema = self._schema_of(example.reference)
            if schema is None:
                raise ValueError(
                    "Doc._.uie_schema of a training document is None and uc_uie has no schema; expected one of them."
                )
            lesson = self._lesson(maker, example.reference, schema, rng, warming=warming)
            if lesson is not None:
                lessons.append(maker.tokens(lesson))
        longest = longest_text(self.bundle.network.model)
        fitting = [lesson for lesson in lessons if len(lesson) <= longest]
        if len(fitting) < len(lessons) and not self._said_too_long:
            self._said_too_long = True
            logger.warning(
                "%s: there are lessons of more tokens than the model's %d places, such as %d; they are not learnt. "
                "Smaller text_tokens make them shorter.", self.name, longest, max(map(len, lessons))
            )  # fmt: skip
        return fitting

    def _lesson(
        self, maker: "LessonMaker", doc: Doc, schema: Schema, rng: random.Random, *, warming: bool
    ) -> Lesson | None:
        """A lesson on a document; in warming of one capability: of those that it can teach, the one with the fewest."""
        from .instructions import CAPABILITIES

        if not warming:
            return maker(doc, schema, rng)
        for capability in sorted(CAPABILITIES, key=lambda name: self._learnt[name]):
            lesson = maker(doc, schema, rng, capability=capability)
            if lesson is not None:
                self._learnt[capability] += 1
                return lesson
        return None

    def _lesson_maker(self) -> "LessonMaker":
        from .gold import LessonMaker

        return LessonMaker(self.bundle.network.prompter, limit=self.text_tokens, settings=self._lesson_settings)

    def move_to(self, device: Any) -> None:
        """Put the model on a device of PyTorch, a GPU of several for instance."""
        self._shim.device_name = str(device)
        self._shim.bundle = self._shim.bundle

    def share_updates(self, accelerator: Any) -> None:
        """Learn together with other processes that run the same training: each takes its part of every batch.

        accelerator: Hugging Face accelerate's. The gradients are averaged before each step, so all stay the same.
        """
        self._accelerator = accelerator

    def finish_update(self, sgd: Optimizer) -> None:
        """One step of the optimizer, with the mean of the gradients of all processes, by what they learnt to write."""
        import torch

        if self._accelerator is not None:
            mine = torch.tensor(float(self._tokens_since_step), device=self._accelerator.device)
            share = mine / self._accelerator.reduce(mine.clone(), "sum").clamp(min=1)
            for parameter in self.bundle.network.parameters():
                if parameter.requires_grad:  # all of them, also where there was nothing to learn from
                    gradient = parameter.new_zeros(parameter.shape) if parameter.grad is None else parameter.grad
                    parameter.grad = self._accelerator.reduce(gradient * share, "sum")
        self._tokens_since_step = 0
        self._steps += 1
        super().finish_update(sgd)
        self.bundle.network.decoder.forget()

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """The scores of the scorer; what the schema of the component asks of documents without one is annotated."""
        return {} if self.scorer is None else self.scorer(examples, schema=self._schema, **kwargs)

    # --- saving -----------------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        schema = {} if self._schema is None else self._schema.to_config()
        return {"schema": schema, **{name: getattr(self, name) for name in SETTINGS}}

    def _restore(self, settings: dict[str, Any]) -> None:
        if "schema" in settings:
            self.schema = settings.pop("schema") or None
        super()._restore(settings)

    def _write_model(self, folder: Path) -> None:
        from .checkpoint import save_folder

        save_folder(self.bundle, folder)

    def _read_model(self, folder: Path) -> None:
        self._shim.bundle = self._shim.codec.from_folder(folder)


def _lesson_settings(options: dict[str, Any]) -> LessonSettings:
    try:
        return LessonSettings(**options)
    except TypeError as error:
        raise ValueError(f"lessons is {options!r}; expected options of LessonSettings ({error}).") from None


def _checked_routes(value: Any) -> list[float]:
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or len(value) != 3
        or not all(is_probability(gate) for gate in value)
    ):
        raise ValueError(
            f"routes is {value!r}; expected None, or gates of judging, locating and associating: three numbers from "
            f"0 to 1."
        )
    return list(value)
