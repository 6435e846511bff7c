"""A causal language model of Hugging Face that follows instructions: how it is loaded, and requests as its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def load_instruction_model(source: str, *, revision: str | None = None, device: str = "cpu") -> tuple[Any, Any]:
    """The model, in the precision of its weights and without code of its own, and its tokenizer.

    source: a local folder or a hub id. device: such as ``"cpu"`` or ``"cuda"``. Raises ``ValueError`` for what cannot
    be loaded.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, torch_dtype="auto", trust_remote_code=False
        )
        model = model.to(device).eval()
    # AssertionError: of a device unknown to this torch
    except (OSError, ValueError, RuntimeError, AssertionError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"model {source!r} cannot be loaded as a causal language model: {reason}") from error
    return model, tokenizer


def prompt_text(tokenizer: Any, request: str) -> str:
    """The request as a chat where the tokenizer has a template for one; else as it is.

    Raises ``ValueError`` for a template that is broken or refuses the request.
    """
    if not tokenizer.chat_template:
        return request
    from jinja2 import TemplateError

    messages = [{"role": "user", "content": request}]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the chat template of {tokenizer.name_or_path!r} fails: {reason}") from error


def encode_prompts(tokenizer: Any, requests: Sequence[str], **options: Any) -> Any:
    """The tokens of requests, as the tokenizer gives them with ``options``."""
    special = not tokenizer.chat_template  # the template has written them already
    return tokenizer([prompt_text(tokenizer, request) for request in requests], add_special_tokens=special, **options)


def without_special_tokens(tokenizer: Any, text: str) -> str:
    """``text`` with a space in each name of a special token: web pages have them, and there they end nothing."""
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and len(token.content) > 1:
            text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
    return text
