"""Masked tokens beside transformers: what becomes of them, and the loss."""

import pytest
import torch
import transformers

from lth_cli.config.spec import Spec
from lth_cli.objectives.masked import MaskedTokens

SIZES = {"vocabulary": 25, "length": 64, "padding": 0, "unknown": 1, "begin": 2, "end": 3, "mask": 4}


@pytest.fixture(scope="module")
def tokens():
    """1,000 texts of 64 tokens, a sixth of them special."""
    tokens = torch.randint(5, 25, (1000, 64), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, 30], tokens[:, 55], tokens[:, 56:] = 2, 1, 3, 0
    return tokens


@pytest.fixture
def objective():
    spec = Spec({"tokens": (64,)}, {"tokens": "int64"}, SIZES)
    return MaskedTokens(rate=0.3).settled(spec, steps_per_epoch=1, horizon=1)


def test_tokens_are_chosen_masked_and_replaced_as_often(tokenizer, tokens, objective):
    library = transformers.DataCollatorForLanguageModeling(
        transformers.AutoTokenizer.from_pretrained(str(tokenizer)), mlm_probability=0.3
    )
    torch.manual_seed(0)
    ours = objective.view({"tokens": tokens}, 0, 1)
    found = []
    for shown, targets in (
        (ours["tokens"], ours["targets"]),
        library.torch_mask_tokens(tokens.clone()),
    ):
        chosen = targets != -100
        assert torch.equal(targets[chosen], tokens[chosen]) and not chosen[tokens < 5].any()
        kinds = (chosen, chosen & (shown == 4), chosen & (shown == tokens))
        found.append([int(kind.sum()) / int((tokens >= 5).sum()) for kind in kinds])
    assert found[0] == pytest.approx(found[1], abs=0.008)  # two standard deviations of a difference


def test_loss_and_gradients_are_those_of_bert(tokens, objective):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    network = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=25, **sizes)).eval()
    seen = objective.view({"tokens": tokens[:8]}, 0, 1)
    given = network(input_ids=seen["tokens"], labels=seen["targets"])
    loss = objective.loss(given.logits, seen)
    assert loss.item() == pytest.approx(given.loss.item(), rel=1e-6)
    weights = [weight for name, weight in network.named_parameters() if "token_type" not in name]
    theirs = torch.autograd.grad(given.loss, weights, retain_graph=True)
    for mine, other in zip(torch.autograd.grad(loss, weights), theirs, strict=True):
        assert torch.allclose(mine, other, atol=1e-7)
