"""Losses of distillation against values worked out by hand."""

import math

import pytest
import torch

from lth_cli.objectives.teacher_losses import LOSSES, average, divergence, hard_labels, squared_error

# Softmax of these: teacher (3/4, 1/4), student (1/2, 1/2).
TEACHER = torch.tensor([[math.log(3.0), 0.0]])
STUDENT = torch.zeros(1, 2)


def test_divergence_goes_from_teacher_to_student():
    forwards = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    backwards = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert forwards == pytest.approx(0.130812, abs=1e-6)
    assert backwards == pytest.approx(0.143841, abs=1e-6)
    assert divergence(STUDENT, TEACHER, 1.0).item() == pytest.approx(forwards, abs=1e-6)
    assert divergence(TEACHER, STUDENT, 1.0).item() == pytest.approx(backwards, abs=1e-6)


def test_temperature_divides_both_logits_and_its_square_multiplies():
    # At T = 2, twice the logits give the same distributions: T^2 = 4 times the divergence.
    assert divergence(2 * STUDENT, 2 * TEACHER, 2.0).item() == pytest.approx(4 * 0.130812, abs=1e-5)
    # Hot limit: the gradient is that of the squared error of centred logits over the classes (Hinton et al., eq. 4).
    student = torch.tensor([[1.0, -2.0, 1.0]], requires_grad=True)
    teacher = torch.tensor([[-1.0, 0.5, 0.5]])
    divergence(student, teacher, 1000.0).backward()
    expected = (student.detach() - teacher) / 3
    torch.testing.assert_close(student.grad, expected, rtol=0, atol=2e-3)


def test_divergence_is_the_mean_over_the_batch():
    one = divergence(STUDENT, TEACHER, 1.0)
    both = divergence(torch.cat([STUDENT, TEACHER]), torch.cat([TEACHER, TEACHER]), 1.0)
    assert both.item() == pytest.approx(one.item() / 2, abs=1e-6)


def test_squared_error_is_the_mean_over_batch_and_classes():
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 1.0]])
    assert squared_error(student, teacher, 7.0).item() == pytest.approx((1 + 4 + 0 + 1) / 4)


def test_hard_labels_are_the_teachers_choices():
    student = torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0]])
    teacher = torch.tensor([[5.0, 1.0], [-1.0, 0.0]])  # classes 0 and 1
    expected = -(math.log(0.75) + math.log(0.25)) / 2
    assert hard_labels(student, teacher, 7.0).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_student_that_answers_like_its_teacher_moves_no_further(name):
    """At the teacher's own logits the gradient of kl and mse is 0; hard labels still pull."""
    answers = torch.tensor([[0.3, -1.2, 2.0], [1.0, 1.0, -1.0]])
    student = answers.clone().requires_grad_()
    LOSSES[name](student, answers, 4.0).backward()
    still = bool(student.grad.abs().max() < 1e-6)
    assert still == (name != "cross_entropy")


def test_several_teachers_are_averaged_as_logits():
    one, other = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 6.0]])
    assert average([one, other]).tolist() == [[1.0, 3.0]]
    assert average([one]) is one
