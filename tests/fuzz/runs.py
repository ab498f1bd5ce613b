"""Run folders that are damaged or hostile: resumed, evaluated, drawn and loaded, or refused in one sentence.

Each call copies a small run, changes one to three things in it, and runs a command on it: files are cut, swapped,
removed, replaced by links, pipes and folders; values of the configuration, the manifest, the summary and the metrics
are replaced by others; tensors are replaced by ones of another kind, with a manifest that names the new digest.
Whatever happens, files that lie outside stay as they are, and so does one of the user's in ``checkpoint/``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

HANG_SECONDS = 120.0
MEMORY = 24 << 30  # bytes of addresses, of which torch alone takes a few
NAMES = ("config.yaml", "summary.json", "metrics.jsonl", "timing.jsonl", "lock", "checkpoint/manifest.json")
COMMANDS = (
    "resume",
    "resume --steps 60",
    "resume --device cpu",
    "eval --episodes 4",
    "eval --best --episodes 4",
    "plot --out curve.png",
    "load",
)
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 10**9, 2**31, 2**63, 10**400, 0.5, -0.5, 1e308, float("inf"), float("nan")),
    *("", "x", "../../outside/canary", "/dev/zero", "a\nb\x1b[2J", "x" * 10_000, "cuda", "battle/../x.yaml", "5"),
    *([], [[]], [1, 2], {}, {"a": {}}, {"file": "../../outside/canary", "bytes": 4, "sha256": "0" * 64}),
]


def run(seconds: float, seed: int) -> dict[str, int]:
    """Damage and run for so long: how many ``calls`` there were, and how many ended in a crash (``crashes``), took more
    than two minutes (``hangs``), ended in anything but a sentence (``unclear``), or changed what is not the run's
    (``wrong``). What went wrong is printed with the number that repeats it."""
    counts = dict.fromkeys(("calls", "crashes", "hangs", "unclear", "wrong"), 0)
    context, end, number = multiprocessing.get_context("spawn"), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        # A process for many calls: it says which one it is at, so that its death is that call's.
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(sender, seed, number, end - time.monotonic()), daemon=True)
        process.start()
        sender.close()
        number, going_on = _listen(receiver, counts, number)
        process.kill()
        process.join()
        if not going_on:
            break
    return counts


def _listen(receiver: Any, counts: dict[str, int], number: int) -> tuple[int, bool]:
    """Count what the process says: the number to go on with, and whether there is more to do."""
    while True:
        if not receiver.poll(HANG_SECONDS):
            counts["calls"] += 1
            counts["hangs"] += 1
            print(f"runs, call {number}: hangs")
            return number + 1, True
        try:
            message = receiver.recv()
        except (EOFError, OSError):
            counts["calls"] += 1
            counts["crashes"] += 1
            print(f"runs, call {number}: the process died")
            return number + 1, True
        if message is None:
            return number, False
        number, kind, text = message
        counts["calls"] += 1
        if kind:
            counts[kind] += 1
            print(f"runs, call {number}: {kind}: {text}")
        number += 1


def _work(sender: Any, seed: int, number: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.environ["MPLBACKEND"] = "agg"
    with tempfile.TemporaryDirectory() as root:
        base = Path(root) / "base"
        make_run(base)
        while time.monotonic() < end:
            place = Path(root) / f"call{number}"
            place.mkdir()
            sender.send((number, *call(seed, number, base, place)))
            shutil.rmtree(place, ignore_errors=True)
            number += 1
    sender.send(None)


def make_run(folder: Path) -> None:
    """A finished run of 40 environment steps."""
    import emix

    plan = {"batch_size": 2, "buffer_size": 20}
    options = {"plan": plan, "test_episodes": 4, "log_interval": 10, "checkpoint_interval": 20, "quiet": True}
    emix.train("vdn", "matrix/penalty-2x3", steps=40, run_dir=folder, **options)


def call(seed: int, number: int, base: Path, place: Path) -> tuple[str, str]:
    """One call in the empty folder ``place``: what was wrong (empty: nothing), and a text about it."""
    rng = random.Random(f"{seed} {number}")
    outside, folder = place / "outside", place / "run"
    outside.mkdir()
    (outside / "canary").write_text("bird")
    shutil.copytree(base, folder)
    (folder / "checkpoint" / "best.pt").write_text("mine")
    done = [rng.choice(_CHANGES)(folder, outside, rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    command = rng.choice(COMMANDS)
    told = f"{command} after {'; '.join(done)}"
    kind, text = _judge(command, folder)
    if not kind and ((outside / "canary").read_text() != "bird" or len(list(outside.iterdir())) > 1):
        kind, text = "wrong", "a file outside was changed"
    mine = folder / "checkpoint" / "best.pt"
    if not kind and "checkpoint " not in told and not (mine.is_file() and mine.read_text() == "mine"):
        kind, text = "wrong", "the user's file in checkpoint/ is gone"
    return kind, f"{text}: {told}"[:1500]


def _judge(command: str, folder: Path) -> tuple[str, str]:
    """Run a command: what was wrong with its end."""
    import emix
    from emix.cli import main
    from emix.errors import UsageError

    name, *options = command.split()
    options = [str(folder / option) if option.endswith(".png") else option for option in options]
    out, err = io.StringIO(), io.StringIO()
    signal.alarm(int(2 * HANG_SECONDS))  # its default ends the process
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = 0
            if name == "load":
                emix.load(folder)
            else:
                code = main([name, str(folder), *options])
    except UsageError as error:
        return ("unclear", f"several lines: {error}") if "\n" in str(error) or name != "load" else ("", "")
    except BaseException as error:
        lines = traceback.format_exception(error)
        return "unclear", f"{type(error).__name__}: {error} {lines[-2].strip()}"
    finally:
        signal.alarm(0)
    told = err.getvalue().strip().splitlines()
    clear = 0 < len(told) <= 2 and all(line.startswith("emix: ") for line in told)
    if code and not (code in (1, 2) and clear):
        return "unclear", f"status {code} with {told}"
    return "", ""


def _some_file(folder: Path, rng: random.Random) -> Path:
    parts = sorted((folder / "checkpoint").glob("*.safetensors")) if (folder / "checkpoint").is_dir() else []
    return rng.choice([*(folder / name for name in NAMES), *parts])


def _is_own(path: Path) -> bool:
    """Whether it is a file of this run's alone: this program must not write through a link either."""
    return path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1 and not path.parent.is_symlink()


def _cut(folder: Path, outside: Path, rng: random.Random) -> str:
    path = _some_file(folder, rng)
    if _is_own(path):
        data = path.read_bytes()
        path.write_bytes(data[: rng.randrange(len(data) + 1)])
    return f"{path.name} cut"


def _flip(folder: Path, outside: Path, rng: random.Random) -> str:
    path = _some_file(folder, rng)
    data = bytearray(path.read_bytes()) if _is_own(path) else bytearray()
    for _ in range(rng.choice((1, 1, 5)) if data else 0):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if data:
        path.write_bytes(data)
    return f"{path.name} flipped"


def _swap(folder: Path, outside: Path, rng: random.Random) -> str:
    one, other = _some_file(folder, rng), _some_file(folder, rng)
    if _is_own(one) and _is_own(other):
        a, b = one.read_bytes(), other.read_bytes()
        one.write_bytes(b)
        other.write_bytes(a)
    return f"{one.name} and {other.name} swapped"


def _replace(folder: Path, outside: Path, rng: random.Random) -> str:
    path = _some_file(folder, rng)
    if path.is_dir() or path.parent.is_symlink():
        return "nothing"
    path.unlink(missing_ok=True)
    kind = rng.choice(("nothing", "folder", "pipe", "zero", "link", "loop", "twin", "garbage"))
    if not path.parent.is_dir():
        return "nothing"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind in ("zero", "link", "loop"):
        path.symlink_to({"zero": "/dev/zero", "link": outside / "canary", "loop": path.name}[kind])
    elif kind == "twin":
        os.link(outside / "canary", path)
    elif kind == "garbage":
        path.write_bytes(rng.randbytes(rng.choice((0, 1, 100, 10_000))))
    return f"{path.name} replaced by {kind}"


def _link_folder(folder: Path, outside: Path, rng: random.Random) -> str:
    checkpoint = folder / "checkpoint"
    if checkpoint.is_symlink() or not checkpoint.is_dir():
        return "nothing"
    shutil.move(checkpoint, folder / "moved")
    checkpoint.symlink_to(rng.choice((outside, folder / "moved")))
    return "checkpoint a link"


def _change_values(folder: Path, outside: Path, rng: random.Random) -> str:
    path = folder / rng.choice(("config.yaml", *NAMES[:3], NAMES[-1]))
    if not _is_own(path):
        return "nothing"
    try:
        text = path.read_text()
        if path.suffix == ".yaml":
            content = yaml.safe_load(text)
        elif path.suffix == ".json":
            content = json.loads(text)
        else:
            content = [json.loads(line) for line in text.splitlines()]
        where = rng.choice(list(_places(content)))
    except (OSError, ValueError, yaml.YAMLError, IndexError):
        return "nothing"
    container, key = where
    how = rng.choice(("set", "set", "set", "remove", "add"))
    value = rng.choice(VALUES)
    if how == "set":
        container[key] = value
    elif how == "remove":
        del container[key]
    elif isinstance(container, dict):
        container[rng.choice(("x", "num_envs", "device", "files", "imports", "digests", "replaced"))] = value
    else:
        container.append(value)
    if path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(content, sort_keys=False))
    elif path.suffix == ".json":
        path.write_text(json.dumps(content))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return f"{path.name}: {how} {str(key)[:40]} {str(value)[:40]!r}"


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield content, key
        yield from _places(value)


def _change_tensors(folder: Path, outside: Path, rng: random.Random) -> str:
    """A part with a tensor of another kind, and a manifest that says it is right."""
    if not _is_own(folder / "checkpoint" / "manifest.json"):
        return "nothing"
    try:
        manifest = json.loads((folder / "checkpoint" / "manifest.json").read_text())
        name = rng.choice(sorted(manifest["parts"]))
        entry = manifest["parts"][name]
        path = folder / "checkpoint" / entry["file"]
        tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
        key = rng.choice(sorted(tensors))
        how = rng.choice(("remove", "shape", "dtype", "nan", "empty", "negative", "huge", "many", "header"))
        _change_tensor(tensors, key, how)
        save_file(tensors, path)
    except Exception as error:  # something else was changed before
        return f"nothing ({type(error).__name__})"
    if how == "header":
        path.write_bytes((1 << 40).to_bytes(8, "little") + path.read_bytes()[8:])
    data = path.read_bytes()
    entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "checkpoint" / "manifest.json").write_text(json.dumps(manifest))
    return f"{name}: {key} {how}"


def _change_tensor(tensors: dict[str, torch.Tensor], key: str, how: str) -> None:
    tensor = tensors[key]
    if how == "remove":
        del tensors[key]
    elif how == "shape":
        tensors[key] = torch.cat([tensor.flatten(), tensor.flatten()])
    elif how == "dtype":
        tensors[key] = tensor.to(torch.float16 if tensor.dtype != torch.float16 else torch.int8)
    elif how == "nan" and tensor.is_floating_point():
        tensors[key] = torch.full_like(tensor, torch.nan)
    elif how == "empty":
        tensors[key] = tensor.new_zeros(0)
    elif how == "negative":
        tensors[key] = -tensor.to(torch.float32).to(tensor.dtype) - 1 if tensor.dtype != torch.bool else ~tensor
    elif how == "huge" and tensor.dtype != torch.bool:
        limit: Any = torch.finfo if tensor.is_floating_point() else torch.iinfo
        tensors[key] = torch.full_like(tensor, limit(tensor.dtype).max)
    elif how == "many":
        tensors |= {f"extra{k}": torch.zeros(1) for k in range(3000)}


_CHANGES = [_cut, _flip, _swap, _replace, _link_folder, *[_change_values] * 4, *[_change_tensors] * 2]
