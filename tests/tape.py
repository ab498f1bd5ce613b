"""A stand-in for CUDA graphs on the CPU: torch's ops are written down, and run again."""

import torch
from torch.utils import _pytree as trees
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from emix.learners.loop import run_loop


class Tape(TorchDispatchMode):
    """Torch's ops with their arguments, to run again on the same tensors with the numbers of back then: CUDA graphs.

    They also run while they are recorded, in place of the first replay. ``recorded`` counts them, of all recordings.
    """

    def __init__(self):
        super().__init__()
        self.parts = None  # of the recording: ops that follow each other, and how many times they run
        self.recorded = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        if any(isinstance(each, int | float) for each in trees.tree_leaves(outputs)):
            raise RuntimeError(f"{func} waits for the device")
        fresh = [each for each in tensors(outputs) if not storages(each) <= storages((args, kwargs))]
        if fresh or func._schema.is_mutable:  # neither a view, nor of torch's profiler
            self.parts[-1][0].append((func, args, kwargs or {}, fresh))
            self.recorded += 1
        return outputs

    def warm_up(self, call):
        return call()

    def record(self, call):
        self.parts = parts = [([], 1)]
        with self:
            results = call()
        self.parts = None
        has_run = True

        def replay():
            nonlocal has_run
            for calls, times in [] if has_run else parts:
                self.run(calls, times)
            has_run = False
            return results

        return replay

    def loop(self, body, times):
        if self.parts is None:
            run_loop(body, times)
            return
        calls = []
        self.parts.append((calls, times))
        body()
        with _disable_current_modes():
            self.run(calls, times - 1)
        self.parts.append(([], 1))

    def run(self, calls, times):
        for func, args, kwargs, outputs in times * calls:
            with torch._C._AutoDispatchBelowAutograd():
                again = tensors(func(*args, **kwargs))
                for old, new in zip(outputs, again, strict=True) if outputs else ():
                    old.copy_(new)


def tensors(tree):
    return [leaf for leaf in trees.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def storages(tree):
    return {tensor.untyped_storage()._cdata for tensor in tensors(tree)}
