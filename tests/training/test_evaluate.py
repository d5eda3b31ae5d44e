import pytest
import torch
from torch.nn import functional
from training_helpers import DROPOUT, RESNET, run

from lth_cli.data.batches import labelled
from lth_cli.training.loop import Trainer, initial_state


@pytest.mark.parametrize("net", [(), RESNET, DROPOUT])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_against_one_plain_pass(make_dense, net, split):
    """Batches of 100 with a rest, against all examples at once; no augmentation, no dropout, no smoothing."""
    trajectory = make_dense(
        *net,
        "dataset.validation=50",
        "evaluation.batch_size=100",
        "dataset.augment.crop=2",
        "training.label_smoothing=0.2",
    )
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    run(trainer, 5)
    before = trainer.state()
    metrics = trainer.evaluate(split)
    assert trainer.model.training
    after = trainer.state()
    for name, buffer in after.buffers.items():
        assert torch.equal(buffer, before.buffers[name]), "evaluating moves no statistics"
    batches = list(trajectory.data.evaluation(split))
    inputs, labels = (torch.cat(parts) for parts in zip(*labelled(batches), strict=True))
    assert len(labels) == trajectory.data.sizes[split]
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(inputs).double()
    assert metrics["loss"] == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert metrics["accuracy"] == (logits.argmax(1) == labels).sum().item() / len(labels)
