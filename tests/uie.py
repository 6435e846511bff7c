"""Tiny random language models of Hugging Face, and documents with gold frames, for the tests of ``uc_uie``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from spacy.tokens import Doc
from spacy.vocab import Vocab
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from spacy_ie_moe.uc_uie import instructions
from spacy_ie_moe.uc_uie.compact import train_tokenizer
from spacy_ie_moe.uc_uie.doc_frames import new_frame

TEXTS = [
    "Barack Obama ( born 1961 ) visited Paris in May .",
    "Marie Curie worked for the Sorbonne in Paris .",
    "The soup was great but the waiter was rude .",
    "x",
    "Ünï {code} [a] \\ b : c",
    "日本語 テキスト",
]
SCHEMAS: dict[str, dict[str, list[str]]] = {
    "NER": {"PER": [], "LOC": []},
    "RE": {"Work_For": ["subject", "object"]},
    "EE": {"Travel": ["Traveller", "Place", "Time"], "Birth: date": ["Time"]},
    "ABSA": {"positive": ["aspect", "opinion"], "negative": ["aspect", "opinion"]},
}
MIXED = {name: slots for schema in SCHEMAS.values() for name, slots in schema.items()}


FRAMES = "{(PER: Barack Obama): []} {(Travel: visited): [(Traveller: Barack Obama), (Place: Paris)]} None Null"


def make_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE that knows the wordings and the signs of frames."""
    return train_tokenizer([*TEXTS, FRAMES, *instructions.all_wordings()] * 3, 700)


def make_tiny_sentencepiece() -> PreTrainedTokenizerFast:
    """A tokenizer in the form of Llama 2's and Mistral's: blanks are signs of words, and what is unknown is bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=["<unk>", "<s>", "</s>", *bytes_])
    tokenizer.train_from_iterator([*TEXTS, FRAMES, *instructions.all_wordings()] * 3, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in bytes_]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def make_tiny_llama(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, spread: float = 0.02) -> LlamaForCausalLM:
    """A random Llama of two layers. spread: of its weights; with larger ones it writes more than one word."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=spread,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval()


def save_tiny_llama(folder: Path, **options: Any) -> Path:
    """A tiny random base in a folder, as users have theirs."""
    tokenizer = make_tiny_tokenizer()
    make_tiny_llama(tokenizer, **options).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_docs(vocab: Vocab) -> list[Doc]:
    """One gold document for each of NER, RE, EE and ABSA."""
    docs = [Doc(vocab, words=TEXTS[row].split()) for row in (0, 1, 0, 2)]
    ner, re, ee, absa = docs
    ner._.frames = [new_frame(ner, "PER", (0, 2), ()), new_frame(ner, "LOC", (7, 8), ())]
    re._.frames = [new_frame(re, "Work_For", None, [("subject", (0, 2)), ("object", (5, 6))])]
    ee._.frames = [
        new_frame(ee, "Travel", (6, 7), [("Traveller", (0, 2)), ("Place", (7, 8)), ("Time", (9, 10))]),
        new_frame(ee, "Birth: date", (3, 4), [("Time", (4, 5))]),
    ]
    ee._.frames.sort(key=lambda frame: frame["pos"])
    absa._.frames = [
        new_frame(absa, "positive", None, [("aspect", (1, 2)), ("opinion", (3, 4))]),
        new_frame(absa, "negative", None, [("aspect", (6, 7)), ("opinion", (8, 9))]),
    ]
    for doc, task in zip(docs, SCHEMAS, strict=True):
        doc._.uie_task = task
        doc._.uie_schema = SCHEMAS[task]
    return docs
