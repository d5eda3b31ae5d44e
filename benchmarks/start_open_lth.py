"""Starts an open_lth checkout of 2020 on today's torch and NumPy, with a seed for the weights, which it does not have.

Run: python benchmarks/start_open_lth.py FOLDER SEED [arguments of open_lth.py ...]

What it needs of older versions is put in place before it is imported; nothing in its folder is written.
"""

import runpy
import sys
from pathlib import Path

import numpy
import torch
import torchvision


def main() -> None:
    """Run its command line in this process."""
    folder, seed, arguments = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    # One name left in NumPy 2; and a class of its own derives from this one, whose bases are in an order that no
    # longer agrees with its. It is not used in one process without a GPU.
    numpy.product = numpy.prod
    torch.nn.parallel.DistributedDataParallel = type("Unused", (torch.nn.Module,), {})
    # Images decoded from files again have none of the published checksums of CIFAR-10.
    cifar10 = torchvision.datasets.CIFAR10
    cifar10.train_list, cifar10.test_list = (
        [[name, None] for name, _ in files] for files in (cifar10.train_list, cifar10.test_list)
    )
    cifar10.meta = {**cifar10.meta, "md5": None}
    torch.manual_seed(seed)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    sys.argv = [str(folder / "open_lth.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
