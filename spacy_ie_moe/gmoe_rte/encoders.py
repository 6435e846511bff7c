"""The registered encoders of ``gmoe_rte``: thinc models from ``Sentences`` to the rows of ``Features``, [N, d].

Any spaCy encoder will do: a tok2vec or a transformer of the pipeline through a listener, or one of the component's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spacy.tokens import Doc
from thinc.api import ArgsKwargs, Model
from thinc.types import Floats2d

from ..encoder import SMALL_ENCODER
from ..torch_wrapper import Codec, Learning, wrap_network
from .sentences import Sentences

if TYPE_CHECKING:
    from ..precision import Precision
    from .checkpoint import EncoderBundle


# --- a tok2vec ------------------------------------------------------------------------------------------------


def build_tok2vec_sentences(tok2vec: Model[list[Doc], list[Floats2d]]) -> Model[Sentences, Floats2d]:
    """``spacy_ie_moe.Tok2VecSentences.v1``: the words' vectors of a tok2vec, or of a listener to one.

    tok2vec: any spaCy architecture from documents to vectors of their tokens. A sentence's own vector is the mean of
    those of its words.
    """
    return Model(
        "tok2vec_sentences",
        _forward_tok2vec,
        init=_initialize_tok2vec,
        layers=[tok2vec],
        dims={"nO": None},
    )


def _initialize_tok2vec(model: Model, X: Sentences | None = None, Y: Any = None) -> Model:
    (tok2vec,) = model.layers
    tok2vec.initialize(X=X.docs if X is not None else None)
    model.set_dim("nO", tok2vec.get_dim("nO"))
    return model


def _forward_tok2vec(model: Model, sentences: Sentences, is_train: bool) -> tuple[Floats2d, Callable]:
    vectors, backprop_vectors = model.layers[0](sentences.docs, is_train)
    xp = model.ops.xp
    bounds = list(zip(sentences.owner, sentences.start, sentences.end, strict=True))
    blocks = [vectors[doc][start:end] for doc, start, end in bounds]
    rows = xp.concatenate([part for block in blocks for part in (block.mean(axis=0, keepdims=True), block)])

    def backprop(d_rows: Floats2d) -> Any:
        gradients = [xp.zeros_like(of_doc) for of_doc in vectors]
        row = 0
        for doc, start, end in bounds:
            size = end - start
            gradients[doc][start:end] += d_rows[row + 1 : row + 1 + size] + d_rows[row] / size
            row += 1 + size
        return backprop_vectors(gradients)

    return rows, backprop


# --- a transformer of spacy-transformers ------------------------------------------------------------------------


def build_transformer_sentences(upstream: str = "*", grad_factor: float = 1.0) -> Model[Sentences, Floats2d]:
    """``spacy_ie_moe.TransformerSentences.v1``: listens to the pipeline's ``transformer`` component.

    A word's vector is the mean of its pieces; a sentence's own is the first of the window that holds its first word:
    [CLS], which with ``sent_spans`` is the sentence's. upstream: the component's name, "*" for any. grad_factor: what
    the gradients for the transformer are multiplied with. Needs spacy-transformers.
    """
    try:
        from spacy_transformers.layers import TransformerListener
    except ImportError as error:
        raise ImportError(
            "spacy_ie_moe.TransformerSentences.v1 needs spacy-transformers; expected it to be installed "
            "(pip install 'spacy_ie_moe[transformer]')."
        ) from error
    return Model(
        "transformer_sentences",
        _forward_transformer,
        init=_initialize_transformer,
        layers=[TransformerListener(upstream)],
        dims={"nO": None},
        attrs={"grad_factor": grad_factor},
    )


def _initialize_transformer(model: Model, X: Sentences | None = None, Y: Any = None) -> Model:
    (listener,) = model.layers
    listener.initialize(X=X.docs if X is not None else None)
    model.set_dim("nO", listener.get_dim("nO"))
    return model


def _forward_transformer(model: Model, sentences: Sentences, is_train: bool) -> tuple[Floats2d, Callable]:
    outputs, backprop_outputs = model.layers[0](sentences.docs, is_train)
    ops = model.ops
    filled = zip(outputs, sentences.docs, strict=True)
    window = next(output.model_output.last_hidden_state.shape[1:] for output, doc in filled if len(doc))
    read = [_DocumentPieces(ops, output, window) for output in outputs]
    bounds = list(zip(sentences.owner, sentences.start, sentences.end, strict=True))
    parts = [part for doc, start, end in bounds for part in (read[doc].sentence(start), read[doc].words[start:end])]
    rows = ops.xp.concatenate(parts)

    def backprop(d_rows: Floats2d) -> Any:
        row = 0
        for doc, start, end in bounds:
            read[doc].add_gradient(start, end, d_rows[row : row + 1 + end - start])
            row += 1 + end - start
        factor = model.attrs["grad_factor"]
        return backprop_outputs([pieces.gradient(factor) for pieces in read])

    return rows, backprop


class _DocumentPieces:
    """What a transformer says of a document: words [n, d] as means of pieces, and the windows' first vectors."""

    def __init__(self, ops: Any, output: Any, window: tuple[int, int]) -> None:
        """window: pieces and width of the batch's windows, which an empty document has none of."""
        self.ops = ops
        self.output = output
        self.lengths = output.align.lengths
        hidden = output.model_output.last_hidden_state if len(self.lengths) else ops.alloc3f(0, *window)
        self.shape = hidden.shape
        self.pieces = hidden.reshape(-1, hidden.shape[-1])
        self.index = output.align.dataXd.reshape(-1)
        self.words = ops.reduce_mean(self.pieces[self.index], self.lengths)
        self.d_words = ops.xp.zeros_like(self.words)
        self.d_pieces = ops.xp.zeros_like(self.pieces)

    def _first(self, start: int) -> int:
        """The row of the first piece of the window that holds word ``start`` (the next with pieces, if it has none)."""
        position = int(self.lengths[:start].sum())
        piece = int(self.index[min(position, len(self.index) - 1)]) if len(self.index) else 0
        return piece - piece % self.shape[1]

    def sentence(self, start: int) -> Floats2d:
        """[1, d] the vector of the sentence that starts with word ``start``."""
        first = self._first(start)
        return self.pieces[first : first + 1]

    def add_gradient(self, start: int, end: int, d_rows: Floats2d) -> None:
        self.d_pieces[self._first(start)] += d_rows[0]
        self.d_words[start:end] += d_rows[1:]

    def gradient(self, factor: float) -> Any:
        """The gradient in the shape of the transformer's output."""
        from transformers.file_utils import ModelOutput

        if len(self.lengths):
            d_taken = self.ops.backprop_reduce_mean(self.d_words, self.lengths)
            self.ops.scatter_add(self.d_pieces, self.index, d_taken)
        d_hidden = (self.d_pieces * factor).reshape(self.shape)
        return type(self.output)(
            wordpieces=self.output.wordpieces,
            model_output=ModelOutput(last_hidden_state=d_hidden),
            align=self.output.align,
        )


# --- an encoder of its own --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncoderCodec(Codec["EncoderBundle"]):
    """A pretrained encoder from a folder or the hub; what was trained of it is saved whole."""

    name: str
    revision: str | None
    mixed_precision: bool
    precision: Precision
    prompts: bool

    def load(self) -> EncoderBundle:
        from . import checkpoint

        return checkpoint.load_sentence_encoder(
            self.name, revision=self.revision, mixed_precision=self.mixed_precision, prompts=self.prompts
        )

    def to_files(self, bundle: EncoderBundle) -> dict[str, bytes]:
        from . import checkpoint

        return checkpoint.encoder_files(bundle)

    def from_files(self, files: dict[str, bytes]) -> EncoderBundle:
        from . import checkpoint

        return checkpoint.read_encoder_files(files, mixed_precision=self.mixed_precision)

    def from_folder(self, folder: Path) -> EncoderBundle:
        from ..network_files import CONFIG, TOKENIZER, WEIGHTS, read_folder

        return self.from_files(read_folder(folder, (CONFIG, WEIGHTS, TOKENIZER), folder))

    def for_prediction(self, bundle: EncoderBundle) -> Any:
        from ..precision import to_precision
        from ..speedups import accelerate

        if self.precision == "float32":
            return accelerate(bundle.network)
        # A copy that shares all parameters but those that are rounded.
        network = copy.deepcopy(bundle.network, {id(shared): shared for shared in bundle.network.parameters()})
        to_precision(network.encoder, self.precision)
        return accelerate(network).eval()


def build_sentence_encoder(
    name: str = SMALL_ENCODER,
    revision: str | None = None,
    rate: float = 1.0,
    mixed_precision: bool = False,
    precision: Literal["float32", "bfloat16", "int8"] = "float32",
    device: str | None = None,
    prompts: bool = False,
) -> Model[Sentences, Floats2d]:
    """``spacy_ie_moe.SentenceEncoder.v1``: a Hugging Face encoder of the component's own, fine-tuned with it.

    name: a folder or a hub id (with ``revision``). rate: its learning rate, as a factor of the optimizer's; 0 freezes
    it. mixed_precision: train in bfloat16 with float32 weights. precision: what prediction computes in. device:
    "cpu", "cuda", ...; default: that of spaCy. prompts: add a token that marks labels before the words, for backbones
    that are told what to look for; it starts at random and is learnt with the encoder.
    """
    return wrap_network(
        "sentence_encoder",
        EncoderCodec(name, revision, mixed_precision, precision, prompts),
        learning=Learning({"": rate}),
        device=device,
        convert_inputs=_to_words,
        convert_outputs=_to_rows,
    )


def _to_words(model: Model, sentences: Sentences, is_train: bool) -> tuple[ArgsKwargs, Callable]:
    return ArgsKwargs(args=(sentences.words, sentences.prompts), kwargs={}), lambda gradients: []


def _to_rows(model: Model, x_and_y: tuple[Sentences, Any], is_train: bool) -> tuple[Floats2d, Callable]:
    import torch

    _, rows = x_and_y

    def backprop(d_rows: Floats2d) -> ArgsKwargs:
        gradient = torch.as_tensor(d_rows, device=rows.device)
        return ArgsKwargs(args=((rows,),), kwargs={"grad_tensors": (gradient,)})

    return rows.detach().cpu().numpy(), backprop
