"""The program starts without torch's compiler, and has it as soon as somebody compiles."""

import subprocess
import sys

SCRIPT = """
import sys
from lth_cli.cli.startup import defer_compiler
defer_compiler()
import torch
def real():
    return hasattr(type(sys.modules["torch._dynamo"]), "graph_break") is False
model = torch.nn.Linear(3, 3)
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
def step():
    optimizer.zero_grad()
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
step()
assert optimizer.state_dict()["state"] and not real()
plain = model(torch.ones(2, 3))
compiled = torch.compile(model, backend="eager", fullgraph=True)
assert torch.equal(compiled(torch.ones(2, 3)), plain) and real()
import torch._dynamo.config
step()
"""


def test_the_compiler_is_there_for_who_compiles() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
