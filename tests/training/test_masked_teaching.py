"""Teachers that look at some patches: which, what they answer, and that a training taken up again is the same."""

import copy
from types import SimpleNamespace

import pytest
import torch
from test_teaching import taught, teaching_of
from training_helpers import run

from lth_cli.config.compose import load
from lth_cli.config.distilling import Distillation
from lth_cli.config.errors import ConfigError
from lth_cli.experiments.plan import make_plan
from lth_cli.experiments.teachers import _check_patches
from lth_cli.models.vision_transformer import VisionTransformer
from lth_cli.objectives.teacher_losses import similarities
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training.loop import Trainer, initial_state
from lth_cli.training.trajectory import Teacher

VIT = ("model=vit_small", "model.patch=2", "model.width=16", "model.depth=2")


def small(**changes):
    torch.manual_seed(0)
    return VisionTransformer(
        input_shape=(3, 8, 8), classes=5, **{"patch": 2, "width": 16, "depth": 2, "heads": 2, **changes}
    )


def test_all_patches_in_any_order_are_the_whole_image():
    model, images = small().eval(), torch.randn(3, 3, 8, 8)
    order = torch.stack([torch.randperm(16) for _ in range(3)])
    torch.testing.assert_close(model(images, order), model(images))


def test_what_is_not_kept_plays_no_part():
    model, images = small().eval(), torch.randn(1, 3, 8, 8)
    kept = torch.tensor([[0, 5, 6]])
    before = model(images, kept)
    images[:, :, 6:, 6:] += 10.0  # patch 15
    torch.testing.assert_close(model(images, kept), before)
    images[:, :, 2:4, 2:4] += 10.0  # patch 5
    assert not torch.allclose(model(images, kept), before)


def test_class_attention_is_that_of_the_last_block_written_out():
    model, images = small().eval(), torch.randn(2, 3, 8, 8)
    seen = []
    model.blocks[-1].attn.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(images)
    qkv = model.blocks[-1].attn.qkv(seen[0]).reshape(2, 17, 3, 2, 8).permute(2, 0, 3, 1, 4)
    attention = (qkv[0] @ qkv[1].transpose(-2, -1) * 8**-0.5).softmax(-1)
    torch.testing.assert_close(model.class_attention, attention.mean(1)[:, 0, 1:])


def test_a_copy_is_taken_between_a_training_pass_and_the_next():
    model, images = small(), torch.randn(2, 3, 8, 8)
    answers = model(images)
    torch.testing.assert_close(copy.deepcopy(model)(images), answers)


def test_similarities():
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert similarities(features, 3 * features, 1.0) == 0
    same = torch.tensor([[1.0], [1.0]])
    # Rows (1, 0), (0, 1) beside (r, r) with r the root of 1/2.
    r = 0.5**0.5
    assert similarities(features, same, 1.0).item() == pytest.approx(((1 - r) ** 2 + r**2) / 2)


@pytest.mark.parametrize("by", ["student", "teacher", "random"])
def test_taken_up_again_it_ends_in_the_same_bytes(make_dense, tmp_path, by):
    teacher = make_dense(*VIT, "seeds.init=5")
    student = taught(make_dense(*VIT), [teacher], patches=0.5, patches_by=by)
    store = TrajectoryStore(tmp_path)

    def trainer(state):
        return Trainer(student, state, teaching=teaching_of(student, store))

    whole, first = trainer(initial_state(student, 0)), trainer(initial_state(student, 0))
    run(whole, 4)
    run(first, 2)
    second = trainer(first.state())
    run(second, 4)
    ends = whole.state().weights, second.state().weights
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_who_chooses_is_part_of_the_identity(make_dense):
    teacher = make_dense(*VIT, "seeds.init=5")
    identities = {
        taught(make_dense(*VIT), [teacher], patches=share, patches_by=by).identity
        for share, by in [(None, "student"), (0.5, "student"), (0.5, "random"), (0.25, "student")]
    }
    assert len(identities) == 4


@pytest.mark.parametrize("wrong", [{"patches": 0.0}, {"patches": 1.5}, {"patches": 0.5, "cache": True}])
def test_refused(wrong):
    with pytest.raises(ValueError, match=r"patches|cache"):
        Distillation(teachers=["a"], **wrong)


def test_a_teacher_with_as_many_patches_in_another_grid_is_refused():
    """It would be shown other places than the student chose."""
    overrides = [*VIT, "distillation=maskedkd", "distillation.teachers=[run:0]"]
    plan = make_plan(load("train", overrides).config)
    model = plan.config.model.model_dump(mode="json")
    like, other = (
        SimpleNamespace(label="it", teacher=Teacher(None, model, shape)) for shape in ((1, 8, 8), (1, 4, 16))
    )
    _check_patches([like], plan)
    with pytest.raises(ConfigError, match="the same grid of patches: the student 4 x 4, it 2 x 8"):
        _check_patches([other], plan)
