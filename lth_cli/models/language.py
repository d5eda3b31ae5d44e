"""Language models of the library transformers, as networks that take a tensor of tokens and return logits.

Their tensors have the names that the library gives them, so weights of a folder fit by name, and an exported round is
read by the library. What a model is for decides its head: texts of classes or a number (a sequence classifier), a class
for each token, the ends of an answer, or the vocabulary (masked for BERT, causal for the others), whose output layer
shares the embeddings.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from lth_cli.config import extras
from lth_cli.config.errors import ConfigError

Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]
_DEVIATION = 0.02  # of initial weights, as published for all of these families


def bert(
    *,
    vocabulary: int,
    length: int,
    padding: int | None = None,
    classes: int | None = None,
    outputs: int | None = None,
    token_classes: int | None = None,
    span_ends: int | None = None,
    width: PositiveInt = 768,
    depth: PositiveInt = 12,
    heads: PositiveInt = 12,
    hidden: PositiveInt = 3072,
    positions: PositiveInt = 512,
    dropout: Dropout = 0.1,
    rows: PositiveInt | None = None,
) -> nn.Module:
    """BERT (Devlin et al. 2019). A network for masked tokens or answers has a pooler too, which it does not use: so
    tickets of all tasks have the same tensors, as in the code of Chen et al. 2020 (arXiv:2007.12223).

    Args:
        vocabulary: of the tokenizer.
        length: tokens of a text.
        padding: number of the token that is not attended to; None attends to all.
        classes: of texts.
        outputs: numbers to predict for a text.
        token_classes: of each token.
        span_ends: 2 for logits of each token as the first and the last of an answer.
        width: of the residual stream.
        depth: layers.
        heads: of attention; a divisor of `width`.
        hidden: width of the hidden layers.
        positions: tokens it can see at most.
        dropout: of everything that BERT drops.
        rows: of the embedding, where that has more than the tokenizer has tokens.

    Raises:
        ConfigError: sizes that do not fit each other.
        RequestError: transformers is not installed.
    """
    library = extras.transformers("model=bert")
    _check(vocabulary, length, width=width, heads=heads, positions=positions, rows=rows)
    config = library.BertConfig(
        vocab_size=rows or vocabulary,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=hidden,
        max_position_embeddings=positions,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=padding,
        num_labels=span_ends or token_classes or classes or outputs or 2,
    )
    if token_classes is not None:
        return _taking_tokens(library.BertForTokenClassification, config, padding)
    if classes is not None or outputs is not None:
        return _taking_tokens(library.BertForSequenceClassification, config, padding)
    kind = library.BertForMaskedLM if span_ends is None else library.BertForQuestionAnswering
    network = _taking_tokens(kind, config, padding, vocabulary)
    pooler = library.models.bert.modeling_bert.BertPooler(config)
    nn.init.normal_(pooler.dense.weight, std=_DEVIATION)
    nn.init.zeros_(pooler.dense.bias)
    network.get_submodule("bert").pooler = pooler
    return network


def gpt2(
    *,
    vocabulary: int,
    length: int,
    padding: int | None = None,
    classes: int | None = None,
    outputs: int | None = None,
    width: PositiveInt = 768,
    depth: PositiveInt = 12,
    heads: PositiveInt = 12,
    positions: PositiveInt = 1024,
    dropout: Dropout = 0.1,
    rows: PositiveInt | None = None,
) -> nn.Module:
    """GPT-2 (Radford et al. 2019). Its linear layers have weights [inputs, outputs]. Arguments and errors as `bert`."""
    library = extras.transformers("model=gpt2")
    _check(vocabulary, length, width=width, heads=heads, positions=positions, rows=rows)
    config = library.GPT2Config(
        vocab_size=rows or vocabulary,
        n_embd=width,
        n_layer=depth,
        n_head=heads,
        n_positions=positions,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        **_ends(padding, classes, outputs),
    )
    if classes is None and outputs is None:
        return _taking_tokens(library.GPT2LMHeadModel, config, padding, vocabulary)
    return _taking_tokens(library.GPT2ForSequenceClassification, config, padding)


def opt(
    *,
    vocabulary: int,
    length: int,
    padding: int | None = None,
    classes: int | None = None,
    outputs: int | None = None,
    width: PositiveInt = 768,
    depth: PositiveInt = 12,
    heads: PositiveInt = 12,
    hidden: PositiveInt = 3072,
    positions: PositiveInt = 2048,
    dropout: Dropout = 0.1,
    rows: PositiveInt | None = None,
) -> nn.Module:
    """OPT (Zhang et al. 2022, arXiv:2205.01068), with norms before layers. Arguments and errors as `bert`."""
    library = extras.transformers("model=opt")
    _check(vocabulary, length, width=width, heads=heads, positions=positions, rows=rows)
    config = library.OPTConfig(
        vocab_size=rows or vocabulary,
        hidden_size=width,
        word_embed_proj_dim=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        ffn_dim=hidden,
        max_position_embeddings=positions,
        dropout=dropout,
        **_ends(padding, classes, outputs),
    )
    if classes is None and outputs is None:
        return _taking_tokens(library.OPTForCausalLM, config, padding, vocabulary)
    return _taking_tokens(library.OPTForSequenceClassification, config, padding)


def llama(
    *,
    vocabulary: int,
    length: int,
    padding: int | None = None,
    classes: int | None = None,
    outputs: int | None = None,
    width: PositiveInt = 576,
    depth: PositiveInt = 30,
    heads: PositiveInt = 9,
    key_heads: PositiveInt | None = None,
    hidden: PositiveInt = 1536,
    positions: PositiveInt = 2048,
    base: Annotated[float, Field(gt=0.0)] = 10_000.0,
    epsilon: Annotated[float, Field(gt=0.0)] = 1e-5,
    tied: bool = True,
    rows: PositiveInt | None = None,
) -> nn.Module:
    """Llama (Touvron et al. 2023, arXiv:2302.13971); width and depth are those of SmolLM2-135M by default.

    Args:
        vocabulary: as `bert`; so are those not named here.
        length: tokens of a text.
        padding: number of the token that is not attended to.
        classes: of texts.
        outputs: numbers to predict for a text.
        width: of the residual stream.
        depth: layers.
        heads: of attention; a divisor of `width`.
        key_heads: heads of keys and values; null is `heads`.
        hidden: width of the gated hidden layers.
        positions: tokens it can see at most.
        base: of the rotary embedding's wavelengths.
        epsilon: of the norms.
        tied: whether the output layer shares the embeddings.
        rows: of the embedding.

    Raises:
        ConfigError: sizes that do not fit each other.
        RequestError: transformers is not installed.
    """
    library = extras.transformers("model=llama")
    _check(vocabulary, length, width=width, heads=heads, positions=positions, rows=rows)
    if key_heads is not None and heads % key_heads:
        raise ConfigError(("model.key_heads", f"{key_heads} is no divisor of model.heads={heads}"))
    config = library.LlamaConfig(
        vocab_size=rows or vocabulary,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=key_heads or heads,
        intermediate_size=hidden,
        max_position_embeddings=positions,
        rope_parameters={"rope_type": "default", "rope_theta": base},
        rms_norm_eps=epsilon,
        tie_word_embeddings=tied,
        **_ends(padding, classes, outputs),
    )
    if classes is None and outputs is None:
        return _taking_tokens(library.LlamaForCausalLM, config, padding, vocabulary)
    return _taking_tokens(library.LlamaForSequenceClassification, config, padding)


def _ends(padding: int | None, classes: int | None, outputs: int | None) -> dict[str, Any]:
    """Settings of a causal model; the library's own begin and end would lie outside of small vocabularies."""
    labels = classes or outputs or 2
    return {"pad_token_id": padding, "bos_token_id": None, "eos_token_id": None, "num_labels": labels}


def _check(vocabulary: int, length: int, *, width: int, heads: int, positions: int, rows: int | None) -> None:
    if width % heads:
        raise ConfigError(("model.heads", f"{heads} is no divisor of model.width={width}"))
    if length > positions:
        raise ConfigError(
            ("dataset.length", f"texts of {length} tokens are longer than model.positions={positions}")
        )
    if rows is not None and rows < vocabulary:
        raise ConfigError(("model.rows", f"{rows} are fewer than the tokenizer's {vocabulary} tokens"))


def _taking_tokens(kind: Any, config: Any, padding: int | None, vocabulary: int | None = None) -> nn.Module:
    """A model of the library that takes tokens [N, L], or tokens and segments [N, 2, L], and returns its logits.

    Those of a `vocabulary` are of the tokenizer's tokens alone, where the embedding has more rows. Segments are told to
    models with an embedding of them; GPT-2 would add those of the words 0 and 1.
    """
    segmented = getattr(config, "type_vocab_size", 0) > 1

    class Network(kind):
        def forward(self, tokens: Tensor) -> Tensor:
            given: dict[str, Tensor] = {}
            if tokens.dim() == 3:
                tokens, segments = tokens.unbind(1)
                if segmented:
                    given["token_type_ids"] = segments
            if padding is not None:
                given["attention_mask"] = (tokens != padding).long()
            found = super().forward(input_ids=tokens, return_dict=True, **given)
            if "start_logits" in found:
                return torch.stack([found["start_logits"], found["end_logits"]], -1)
            logits: Tensor = found.logits
            return logits[..., :vocabulary]

    Network.__name__ = Network.__qualname__ = kind.__name__
    config.use_cache = False
    config.architectures = [kind.__name__]
    network: nn.Module = Network(config)
    return network
