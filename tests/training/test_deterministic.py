"""What torch's deterministic algorithms, which training asks for, refuse or slow down on a GPU: none of it is used.

The ops are those that run on the CPU, with a GPU's choices where there are two.
"""

import re
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import emix
from emix import learners, ops
from emix.data import Replay, TransitionReplay
from emix.errors import UsageError
from emix.learners import shared
from emix.learners.optimiser import Optimiser
from emix.ops import critic
from emix.playing import collect
from emix.training.deterministic import deterministic

# https://docs.pytorch.org/docs/2.13/generated/torch.use_deterministic_algorithms.html, "will throw", by aten's names.
RAISE = {
    *("avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward"),
    *("adaptive_max_pool2d_backward", "fractional_max_pool2d_backward", "fractional_max_pool3d_backward"),
    *("max_unpool2d", "max_unpool3d"),
    *("upsample_linear1d_backward", "upsample_bilinear2d_backward"),
    *("upsample_bicubic2d_backward", "upsample_trilinear3d_backward"),
    *("reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward"),
    *("nll_loss_forward", "nll_loss2d_forward", "_ctc_loss_backward", "_embedding_bag_dense_backward"),
    *("put", "put_", "histc", "bincount", "median", "nanmedian", "cumsum", "cumsum_"),
    *("grid_sampler_2d_backward", "grid_sampler_3d_backward", "scatter_reduce", "scatter_reduce_"),
}
ONLY_OF_FLOATS = {"cumsum", "cumsum_"}
# The same page, "will act deterministically": on a GPU by sorting.
SORT = {"index_put", "index_put_", "_index_put_impl_", "index_copy", "index_copy_", "index_add", "index_add_"}
SORT |= {"scatter_add", "scatter_add_", "repeat_interleave"}


class Names(TorchDispatchMode):
    """The aten ops that run."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.namespace == "aten" and (name not in ONLY_OF_FLOATS or outputs.is_floating_point()):
            self.found.add(name)
        return outputs


def torchs_step(optimiser):
    norm = nn.utils.clip_grad_norm_(optimiser.parameters.values(), optimiser.max_norm)
    optimiser.torch.step()
    return norm


@pytest.fixture
def _as_on_a_gpu(monkeypatch, padding_computed):
    monkeypatch.setattr(Optimiser, "_rmsprop_step", torchs_step)
    monkeypatch.setattr(shared, "_scatters_in_order", lambda device: False)
    monkeypatch.setattr(ops, "ensemble_critic", critic._products)


SMALL = {"critic_dim": 8, "critic_second_dim": 8, "hidden_dim": 8, "second_dim": 8}
SMALL |= {"epochs": 2, "minibatches": 2}
VECTORS = re.compile(r"facmac|ader@(matrix|mujoco|prey)")  # recipes for actions that are vectors
CONFIGS = {name: (name, {}) for name in learners.list_algorithms()}
CONFIGS |= {
    "n_step": ("smix", {"target": "n_step"}),
    "variance": ("ensemble-mix", {"bonus": "variance"}),
    "gate over all": ("ensemble-mix", {"gate_over": "all"}),
    "retrace": ("ensemble-mix", {"on_target": "retrace"}),
    "batched": ("ensemble-mix", {"critic_update": "batched", "c": 0.3, "mixer_bias": True}),
}


@pytest.mark.usefixtures("_as_on_a_gpu")
@pytest.mark.parametrize("name", CONFIGS)
def test_learners_use_none_of_it(name):
    algorithm, values = CONFIGS[name]
    vectors = VECTORS.match(algorithm)
    env = emix.make("matrix/continuous", num_envs=4) if vectors else emix.make("battle/3m", num_envs=4, checked=False)
    values = learners.merged(learners.load_recipe(algorithm).learner, values | SMALL | {"plan": {"batch_size": 4}})
    known = learners.get(algorithm).config.__dataclass_fields__
    config = learners.make_config(algorithm, {key: value for key, value in values.items() if key in known})
    one = learners.get(algorithm).learner(config, env.spec, device="cpu", seed=0)
    if hasattr(one, "critic"):
        one.critic.skips_padding = False
    if one.plan.unit == "transition":
        replay = TransitionReplay(20, env.spec, one.actor.record, device="cpu", seed=0)
    else:
        replay = Replay(20, env.spec, one.actor.record, device="cpu", seed=0, multiple=8)
    with Names() as names:
        for explore in (True, False):
            rollout = collect(env, one.actor, explore=explore)
    with Names() as storing:
        replay.add(rollout.episodes, rollout.lengths)
    with names:
        one.update(one.draw(replay))
        one.advance(100, 4)
    assert len(names.found) > 30
    assert "_foreach_norm" in names.found or "linalg_vector_norm" in names.found
    assert not names.found & RAISE
    assert not names.found & SORT
    assert storing.found & SORT == {"index_copy_", "index_put_"}  # the first once a rollout, the second on the CPU
    assert not storing.found & RAISE


def first(avail):
    return avail.int().argmax(-1)


@pytest.mark.parametrize(
    "name", ["matrix/msteps-5", "matrix/penalty-2x3", "prey/stag-hunt", "prey/macf", "prey/heterogeneous"]
)
def test_games_on_tensors_use_none_of_it(name):
    env = emix.make(name, num_envs=3)
    with Names() as names:
        step = env.reset()
        for _ in range(env.spec.episode_limit):
            vectors = step.avail is None
            step = env.step(env.spec.action.none((3, env.spec.n_agents), env.device) if vectors else first(step.avail))
        env.reset(step.done)
    assert not names.found & RAISE


def test_it_would_be_seen():
    x = torch.zeros(3, 4, requires_grad=True)
    with Names() as names:
        x.gather(1, torch.zeros(3, 1, dtype=torch.int64)).sum().backward()
        torch.zeros(3).cumsum(0)
        torch.nn.functional.nll_loss(x, torch.zeros(3, dtype=torch.int64))
    assert {"scatter_add", "scatter_add_"} & names.found & SORT
    assert names.found & RAISE == {"cumsum", "nll_loss_forward"}
    with Names() as names:
        torch.zeros(3, dtype=torch.int64).cumsum(0)
    assert not names.found & RAISE


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_cublas_is_told_when_training_is_imported():
    code = "import os; os.environ.pop('CUBLAS_WORKSPACE_CONFIG', 0); import emix.training; "
    found = python(code + "print(os.environ['CUBLAS_WORKSPACE_CONFIG'])")
    assert found.stdout == ":4096:8\n", found.stderr


def test_what_it_says_where_cublas_was_used_before(monkeypatch):
    def refuse(*tensors):
        raise RuntimeError("Deterministic behavior was enabled with either ...")

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    monkeypatch.setattr(torch, "ones", lambda *sizes, device: None)
    monkeypatch.setattr(torch, "mm", refuse)
    message = r"expected CUBLAS_WORKSPACE_CONFIG :4096:8 or :16:8 at .*, got ':0:0' now"
    with pytest.raises(UsageError, match=message), deterministic(1, torch.device("cuda")):
        pass


@pytest.mark.cuda
@pytest.mark.parametrize("before", [True, False])
def test_cublas_before_training_is_imported(before):
    """torch 2.11 looks at the variable at the first deterministic product: an ordinary one before does no harm."""
    product = "torch.ones(2, 2, device='cuda') @ torch.ones(2, 2, device='cuda')\n"
    found = python(
        "import os, torch\nos.environ.pop('CUBLAS_WORKSPACE_CONFIG', 0)\n"
        + (product if before else "")
        + "from emix.training.deterministic import deterministic\nwith deterministic(1, torch.device('cuda')):\n    "
        + product
    )
    refused = before and "UsageError: cuBLAS would not repeat its numbers" in found.stderr
    assert found.returncode == (1 if refused else 0), found.stderr
