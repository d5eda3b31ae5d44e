"""A training with teachers: what each step adds, who is asked when, and that keeping answers changes no number."""

import dataclasses

import pytest
import torch
from torch.nn import functional
from training_helpers import RESNET, run

from lth_cli.data.batches import labelled
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training.loop import Trainer, initial_state
from lth_cli.training.teaching import Glasses, Teaching, make_teaching
from lth_cli.training.trajectory import Distilled, FromState, Teacher

PLAIN = {"temperature": 2.0, "weight": 0.75, "task_weight": 0.25, "begins": 0, "ends": None, "every": 1}


def taught(trajectory, teachers, **changes):
    """The training with the initial weights of other seeds as teachers."""
    settings = {"loss": "kl", **PLAIN, "sample": None, "dtype": "fp32", **changes}
    model = trajectory.recipe.model.model_dump(mode="json")
    found = tuple(Teacher(FromState(t, 0), model, trajectory.data.spec.input_shape) for t in teachers)
    return dataclasses.replace(trajectory, distilled=Distilled(found, **settings))


@pytest.fixture
def three(make_dense):
    return [make_dense(f"seeds.init={seed}") for seed in (5, 6, 7)]


def teaching_of(student, store):
    states = [initial_state(t.of.parent, t.of.parent.start.seed) for t in student.distilled.teachers]
    return make_teaching(student, states, store, lambda identity: None, lambda: False)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({"begins": 0, "ends": None, "every": 1}, list(range(9))),
        ({"begins": 2, "ends": 7, "every": 2}, [2, 4, 6]),
        ({"begins": 3, "ends": None, "every": 4}, [3, 7]),
    ],
)
def test_steps_that_distil(make_dense, three, window, expected):
    distilled = taught(make_dense(), three, **window).distilled
    assert [step for step in range(9) if distilled.at(step)] == expected


@pytest.mark.parametrize("soft", [(), ("dataset.augment.mixup=1.0", "dataset.augment.cutmix=1.0")])
def test_first_steps_are_those_of_the_formula(make_dense, three, tmp_path, soft):
    """SGD written out: every second step on the mixed loss with T^2 KL(teacher || student), else on the labels."""
    plain = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.weight_decay=0", "optimizer.lr=0.1")
    student = taught(
        make_dense(*plain, *soft),
        three[:1],
        every=2,
    )
    start = initial_state(student, 0)
    trainer = Trainer(student, start, teaching=teaching_of(student, TrajectoryStore(tmp_path)))
    run(trainer, 3)

    def network(state):
        model = student.recipe.build(0)
        model.load_state_dict(state.weights | state.buffers)
        return model

    model, teacher = network(start), network(initial_state(three[0], 5))
    batches = student.batches.starting_at(0)
    for step in range(3):
        inputs, labels = next(labelled(batches))
        logits = model(inputs)
        targets = labels if soft else functional.one_hot(labels, 10)
        loss = -(targets * logits.log_softmax(1)).sum(1).mean()
        if step % 2 == 0:
            with torch.no_grad():
                p = (teacher(inputs) / 2.0).softmax(1)
            divergence = (p * (p.log() - (logits / 2.0).log_softmax(1))).sum(1).mean()
            loss = 0.25 * loss + 0.75 * 4.0 * divergence
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.sub_(student.learning_rate(step) * gradient)
    for name, weight in trainer.state().weights.items():
        torch.testing.assert_close(weight, dict(model.named_parameters())[name].detach())


def test_teachers_are_drawn_by_seed_and_step_alone(make_dense, three, tmp_path):
    student = taught(make_dense(), three, sample=1)
    draws = [Teaching(student, []).asked(step) for step in range(60)]
    assert draws == [Teaching(student, []).asked(step) for step in range(60)]
    assert {draw[0] for draw in draws} == {0, 1, 2}
    assert all(len(draw) == 1 for draw in draws)
    other = taught(make_dense("seeds.augment=9"), three, sample=1)
    assert draws != [Teaching(other, []).asked(step) for step in range(60)]
    two = taught(make_dense(), three, sample=2)
    assert all(len(set(Teaching(two, []).asked(step))) == 2 for step in range(20))
    assert Teaching(taught(make_dense(), three), []).asked(3) == [0, 1, 2]


def test_a_teacher_is_in_evaluation_mode_and_stays_as_it_is(make_dense, tmp_path):
    teacher, student = make_dense(*RESNET, "seeds.init=5"), make_dense(*RESNET)
    student = taught(student, [teacher])
    teaching = teaching_of(student, TrajectoryStore(tmp_path))
    before = initial_state(teacher, 5)
    run(Trainer(student, initial_state(student, 0), teaching=teaching), 3)
    network = teaching._networks[0][1]
    assert not network.training
    live = dict(network.named_parameters()) | dict(network.named_buffers())
    assert all(torch.equal(live[name], value) for name, value in (before.weights | before.buffers).items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_answers_by_step_are_kept_and_change_nothing(make_dense, make_engine, tmp_path, monkeypatch):
    """With augmentation; a student with another loss finds them and asks nobody."""
    augmented = (*RESNET, "dataset.augment.flip=true")
    teacher = make_dense(*augmented, "seeds.init=5")
    student = taught(make_dense(*augmented), [teacher])
    cached = dataclasses.replace(student, distilled=dataclasses.replace(student.distilled, cached=True))
    assert cached.identity == student.identity
    plain = make_engine("plain").state(student, 16)
    stop_at_5 = make_engine("kept")
    stop_at_5.advance(cached, 5)
    kept = make_engine("kept").state(cached, 16)
    assert_same(plain, kept)

    asked = []
    monkeypatch.setattr(Teaching, "_ask", lambda self, index, inputs: asked.append(index))
    other = dataclasses.replace(cached, distilled=dataclasses.replace(cached.distilled, loss="mse"))
    assert not torch.equal(
        make_engine("kept").state(other, 16).weights["fc.weight"], plain.weights["fc.weight"]
    )
    assert asked == []


def test_damaged_answers_are_asked_for_again(make_dense, make_engine, tmp_path):
    augmented = (*RESNET, "dataset.augment.flip=true")
    student = taught(make_dense(*augmented), [make_dense(*augmented, "seeds.init=5")], cached=True)
    plain = make_engine("kept").state(student, 16)
    (answers,) = (tmp_path / "kept").glob("*/answers_00000000.safetensors")
    content = bytearray(answers.read_bytes())
    content[-3] ^= 1
    answers.write_bytes(content)
    engine = make_engine("kept")
    engine.store.discard(student.identity, 16)
    assert_same(engine.state(student, 16), plain)
    assert answers.with_name(answers.name + ".damaged").exists()


def test_answers_by_example_are_those_of_the_teacher(make_dense, make_engine, three, monkeypatch):
    """Once for each example, of another rounding at most, hence another identity."""
    student = taught(make_dense(), three[:2])
    by_example = dataclasses.replace(
        student, distilled=dataclasses.replace(student.distilled, by_example=256)
    )
    assert by_example.identity != student.identity
    one, other = make_engine("a").state(student, 16), make_engine("b").state(by_example, 16)
    for name, weight in one.weights.items():
        torch.testing.assert_close(other.weights[name], weight, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr("lth_cli.training.teaching._answer_all", lambda *_: pytest.fail("answered before"))
    longer = dataclasses.replace(by_example, distilled=dataclasses.replace(by_example.distilled, every=3))
    make_engine("b").state(longer, 16)


@pytest.mark.parametrize("kept", [{}, {"cached": True}, {"by_example": 256}])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(make_dense, make_engine, stop_after, three, kept):
    from lth_cli.training.engine import Interrupted

    student = taught(make_dense("optimizer=sgd", "optimizer.lr=0.1"), three, sample=1, every=2, **kept)
    whole = make_engine("whole").state(student, 16)
    with pytest.raises(Interrupted):
        make_engine("parts", stop=stop_after(9)).state(student, 16)
    with pytest.raises(Interrupted):
        make_engine("parts", stop=stop_after(9)).state(student, 16)
    assert_same(make_engine("parts").state(student, 16), whole)


def test_everything_that_decides_a_number_is_part_of_the_identity(make_dense, three):
    student = taught(make_dense(), three)
    changes = {
        "loss": "mse",
        "temperature": 1.0,
        "weight": 0.5,
        "task_weight": 0.5,
        "begins": 1,
        "ends": 8,
        "every": 2,
        "sample": 1,
        "dtype": "bf16",
        "by_example": 256,
        "patches": 0.5,  # patches_by counts with them alone: test_masked_teaching
        "teachers": student.distilled.teachers[:2],
    }
    assert changes.keys() | {"cached", "patches_by"} == {
        field.name for field in dataclasses.fields(Distilled)
    }
    identities = {student.identity, make_dense().identity}
    for name, value in changes.items():
        distilled = dataclasses.replace(student.distilled, **{name: value})
        identities.add(dataclasses.replace(student, distilled=distilled).identity)
    assert len(identities) == len(changes) + 2
    noted = Distilled.noted(student.description["objective"]["distillation"])
    assert dataclasses.replace(student, distilled=noted).identity == student.identity


def test_inputs_become_what_the_teacher_was_trained_on(make_dense):
    """Grey images of 8 x 8 normalised by (0.5, 0.25), for a teacher of colour images of 16 x 16 by channel."""
    pixels = torch.rand(4, 1, 8, 8)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.5])
    teacher = Teacher(
        FromState(make_dense(), 0),
        {},
        (3, 16, 16),
        tuple((0.25 / std).tolist()),
        tuple(((0.5 - mean) / std).tolist()),
    )
    seen = Glasses(teacher)((pixels - 0.5) / 0.25)
    assert seen.shape == (4, 3, 16, 16)
    wide = functional.interpolate(pixels, size=(16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(seen, (wide - mean.view(3, 1, 1)) / std.view(3, 1, 1), rtol=1e-4, atol=1e-5)
    same = Teacher(FromState(make_dense(), 0), {}, (1, 8, 8))
    assert Glasses(same)(pixels) is pixels


def assert_same(one, other):
    assert one.step == other.step
    for ours, theirs in ((one.weights, other.weights), (one.buffers, other.buffers)):
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
