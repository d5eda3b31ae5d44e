"""Teachers whose answers are of tokens: what a step adds, what is refused, early distillation from the command line."""

import dataclasses

import pytest
import torch

from lth_cli.config.compose import load
from lth_cli.experiments.plan import make_plan
from lth_cli.store.runs import Run
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training.loop import Trainer, initial_state
from lth_cli.training.teaching import make_teaching
from lth_cli.training.trajectory import Distilled, FromState, Teacher

OBJECTIVES = (
    "objective=masked_tokens",
    "objective=substituted_tokens",
    "objective=next_token dataset.pieces=next",
)


def dense(*overrides):
    return make_plan(load("train", overrides).config).dense


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_compares_the_tokens_that_the_loss_counts(tiny, running, tmp_path, objective):
    if "next" in objective:
        tiny = tuple("model=gpt2" if key == "model=bert" else key for key in tiny if "hidden" not in key)
    settings = [*tiny, *running, *objective.split(), "model.dropout=0", "optimizer=sgd", "optimizer.lr=0.1"]
    settings += ["optimizer.momentum=0", "training.length=3it"]
    student, other = dense(*settings), dense(*settings, "seeds.init=5")
    teacher = Teacher(
        FromState(other, 0),
        student.recipe.model.model_dump(mode="json"),
        student.recipe.interface.input_shape,
    )
    distilled = Distilled(
        (teacher,), "kl", 2.0, 0.75, 0.25, begins=0, ends=1, every=1, sample=None, dtype="fp32"
    )
    student = dataclasses.replace(student, distilled=distilled)
    states = [initial_state(other, 5)]
    store = TrajectoryStore(tmp_path)
    teaching = make_teaching(student, states, store, lambda identity: None, lambda: False)
    start = initial_state(student, 0)
    trainer = Trainer(student, start, teaching=teaching)
    trainer.run(1, lambda: False, lambda *_: None)

    networks = []
    for state in (start, states[0]):
        networks.append(student.recipe.build(0))
        networks[-1].load_state_dict(state.weights | state.buffers, strict=False)
    model, frozen = networks[0].train(), networks[1].eval()
    batch = next(iter(student.batches.starting_at(0)))
    loss_of = student.recipe.objective
    seen = loss_of.view(batch, 0, student.recipe.seeds["augment"])
    said = model(loss_of.given(seen))
    with torch.no_grad():
        p = (frozen(loss_of.given(seen)) / 2.0).softmax(-1)
    divergences = (p * (p.log() - (said / 2.0).log_softmax(-1))).sum(-1)
    counted = seen["targets"] != -100 if "targets" in seen else torch.ones_like(divergences, dtype=torch.bool)
    loss = 0.25 * loss_of.loss(said, seen) + 0.75 * 4.0 * divergences[counted].mean()
    loss.backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(
                dict(trainer.model.named_parameters())[name], weight - 0.1 * weight.grad, rtol=1e-4, atol=1e-6
            )


def test_early_distillation_from_the_command_line(tmp_path, lth_in, tiny, running, task):
    plain = (*tiny, *running, "training.length=4it", "--quiet")
    taught = ("distillation=kd", "distillation.teachers=[big]", "distillation.end=0.5")
    assert lth_in(tmp_path, "train", *plain, "model.width=32", "name=big").code == 0
    done = lth_in(tmp_path, "train", *plain, *taught, "name=small")
    assert done.code == 0, done.err
    assert Run(tmp_path / "runs" / "small").round(0).finished

    done = lth_in(tmp_path, "train", *plain, *taught, "distillation.cache=true", "name=kept")
    assert done.code == 2 and "distillation.cache" in done.err and "GB" in done.err
    done = lth_in(tmp_path, "train", *plain, *taught, "dataset.length=9", "name=longer")
    assert done.code == 2 and "length 8" in done.err
    done = lth_in(tmp_path, "train", *tiny, *task, *taught, "training.length=1it", "name=other")
    assert done.code == 2 and "MaskedTokens" in done.err

    sentences = (*tiny, *task, "training.length=4it", "--quiet")
    assert lth_in(tmp_path, "train", *sentences, "name=tuned").code == 0
    from_tuned = (
        "distillation=kd",
        "distillation.teachers=[tuned]",
        "distillation.cache=true",
        "name=cached",
    )
    done = lth_in(tmp_path, "train", *sentences, *from_tuned)
    assert done.code == 0, done.err
