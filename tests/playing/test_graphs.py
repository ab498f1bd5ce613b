"""What ``CudaGraphs`` asks of torch.cuda, written down by a stand-in: no GPU is needed."""

from contextlib import contextmanager

import pytest
import torch

from emix.playing.graphs import CudaGraphs

DEVICE = torch.device("cuda:1")


class Cuda:
    """Of torch.cuda what is used; ``log`` has (what, the current device, the current stream) of each thing done."""

    def __init__(self):
        self.log = []
        self.index, self.at = 0, "default of 0"

    def note(self, what):
        self.log.append((what, self.index, self.at))

    @contextmanager
    def device(self, device):
        before, (self.index, self.at) = (self.index, self.at), (device.index, f"default of {device.index}")
        yield
        self.index, self.at = before

    @contextmanager
    def stream(self, stream):
        before, self.at = self.at, stream.name
        yield
        self.at = before

    def graph_pool_handle(self):
        self.note("pool")
        return "pool"

    def current_stream(self):
        return Stream(self, self.at)

    def new_stream(self):
        self.note("stream")
        return Stream(self, f"side of {self.index}")

    def new_graph(self):
        return Graph(self)

    @contextmanager
    def graph(self, graph, pool, stream):
        assert (pool, stream.name) == ("pool", "side of 1")
        self.note("begin")
        try:
            yield
        finally:
            self.note("end")


class Stream:
    def __init__(self, cuda, name):
        self.cuda, self.name = cuda, name

    def wait_stream(self, other):
        self.cuda.note(f"{self.name} waits for {other.name}")


class Graph:
    def __init__(self, cuda):
        self.cuda, self.generators = cuda, []
        self.number = sum(what == "begin" for what, _, _ in cuda.log)

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        self.cuda.note(f"replay {self.number}")


@pytest.fixture
def cuda(monkeypatch):
    fake = Cuda()
    for name in ("device", "stream", "graph_pool_handle", "current_stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    monkeypatch.setattr(torch.cuda, "Stream", fake.new_stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", fake.new_graph)
    return fake


class Learner:
    generator = None


def whats(cuda):
    return [what for what, _, _ in cuda.log]


def test_everything_happens_on_the_given_device(cuda):
    """While device 0 is the current one."""
    graphs = CudaGraphs(Learner(), DEVICE)
    assert graphs.warm_up(lambda: cuda.note("call") or {}) == {}
    replay = graphs.record(lambda: graphs.loop(lambda: cuda.note("body"), 3) or {"loss": 1})
    assert replay() == replay() == {"loss": 1}
    assert {index for _, index, _ in cuda.log} == {1}
    assert {at for what, _, at in cuda.log if what in ("call", "body", "begin", "end")} == {"side of 1"}
    assert {at for what, _, at in cuda.log if what.startswith("replay")} == {"default of 1"}
    assert (cuda.index, cuda.at) == (0, "default of 0")


def test_a_warm_up_waits_and_is_waited_for(cuda):
    graphs = CudaGraphs(Learner(), DEVICE)
    cuda.log.clear()
    graphs.warm_up(lambda: cuda.note("call"))
    assert whats(cuda) == ["side of 1 waits for default of 1", "call", "default of 1 waits for side of 1"]


def test_a_loop_is_a_graph_of_its_body(cuda):
    graphs = CudaGraphs(Learner(), DEVICE)
    cuda.log.clear()

    def call():
        cuda.note("before")
        graphs.loop(lambda: cuda.note("body"), 3)
        cuda.note("after")

    replay = graphs.record(call)
    recorded = ["begin", "before", "end", "begin", "body", "end", "begin", "after", "end"]
    assert whats(cuda) == [*recorded, "default of 1 waits for side of 1"]  # where a capture sets generators' places
    cuda.log.clear()
    replay()
    assert whats(cuda) == ["replay 0", "replay 1", "replay 1", "replay 1", "replay 2"]


def test_a_loop_in_a_loop_is_recorded_as_often_as_it_runs(cuda):
    graphs = CudaGraphs(Learner(), DEVICE)
    cuda.log.clear()
    graphs.record(lambda: graphs.loop(lambda: graphs.loop(lambda: cuda.note("inner"), 2), 3))
    assert whats(cuda)[:-1] == ["begin", "end", "begin", "inner", "inner", "end", "begin", "end"]


def test_a_loop_outside_a_recording_is_ordinary(cuda):
    graphs = CudaGraphs(Learner(), DEVICE)
    cuda.log.clear()
    graphs.loop(lambda: cuda.note("body"), 3)
    assert whats(cuda) == ["body"] * 3


@pytest.mark.parametrize("inside", [False, True])
def test_what_fails_ends_the_capture(cuda, inside):
    graphs = CudaGraphs(Learner(), DEVICE)

    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        graphs.record((lambda: graphs.loop(fail, 2)) if inside else fail)
    assert whats(cuda).count("begin") == whats(cuda).count("end")
    cuda.log.clear()
    graphs.loop(lambda: cuda.note("body"), 1)
    assert whats(cuda) == ["body"]


def test_generators_are_known_to_every_graph(cuda, monkeypatch):
    graphs = CudaGraphs(Learner(), DEVICE)
    graphs.generators, made, graph = ["generator"], [], torch.cuda.CUDAGraph
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: made.append(graph()) or made[-1])
    graphs.record(lambda: graphs.loop(lambda: None, 2))
    assert [each.generators for each in made] == [["generator"]] * 3
