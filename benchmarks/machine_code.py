"""What the CUDA kernels are compiled to: registers, spills, loads that wait alone, divisions. Needs no GPU.

    python benchmarks/machine_code.py --word returns policy
    python benchmarks/machine_code.py --output before.json
    python benchmarks/machine_code.py --compare before.json    # after a change of csrc

Compiles csrc/<word>/cuda.cu with nvcc, disassembles it with nvdisasm, and prints a row a kernel:

instructions   of the whole kernel, without the compiler's subroutines that it calls
registers      a thread; spills: bytes that are stored to and loaded from local memory because there were too few
warps          that registers allow on a multiprocessor at once, of 64
loads          of global memory
waits          loads whose result is used before another load is issued, whichever way the code takes: a round trip to
               memory each. A load into the same register (another width in a switch) is no other load.
alone          waits with no other load under way: neither issued after it nor waiting when it is issued
/64, /32       divisions by a 64-bit number (calls of the compiler's subroutine) and by a 32-bit one that is not a
               constant (a reciprocal each). The subroutine's quick way for small operands is one of the latter.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
EXTRA_FLAGS = {"battle": ["--fmad=false"]}  # as in CMakeLists.txt
FLAGS = ["-O3", "-std=c++17", "-cubin", "-Xptxas", "-v", "-DTORCH_TARGET_VERSION=0x020A000000000000ULL"]

LOAD = re.compile(r"LDG?(\.|$)")  # LDG, and LD of a generic address
REGISTER = re.compile(r"\bR(\d+)\b")
LABEL = re.compile(r"\.L_x_\d+")


@dataclasses.dataclass
class Instruction:
    text: str  # without its predicate
    conditional: bool = False
    jumps: list[int] = dataclasses.field(default_factory=list)  # where it may go on other than to the next

    @property
    def opcode(self) -> str:
        return self.text.split()[0]

    def operands(self) -> list[str]:
        return self.text[len(self.opcode) :].split(",")

    def ends(self) -> bool:
        """Whether the next instruction is reached by jumps from elsewhere alone."""
        return not self.conditional and self.opcode.split(".")[0] in ("BRA", "BRX", "EXIT", "RET", "JMP", "BPT")

    def is_load(self) -> bool:
        return LOAD.match(self.opcode) is not None

    def loaded(self) -> set[int]:
        """The registers that a load writes."""
        first = int(REGISTER.findall(self.operands()[0])[0]) if REGISTER.search(self.operands()[0]) else -1
        width = 4 if ".128" in self.opcode else 2 if ".64" in self.opcode else 1
        return set(range(first, first + width)) if first >= 0 else set()

    def reads(self) -> set[int]:
        """The registers that it reads; of a pair the first, which is how the disassembler names pairs."""
        operands = self.operands()
        stores = re.match(r"(ST|RED|ATOM|BRA|BRX|RET|CALL|EXIT|ISETP|FSETP|DSETP|PLOP|R2P|R2UR)", self.opcode)
        sources = operands if stores else operands[1:]
        return {int(number) for operand in sources for number in REGISTER.findall(operand)}


def parse(lines: list[str]) -> list[Instruction]:
    """The instructions of a kernel from `nvdisasm --print-code`, without padding and the subroutines behind it."""
    code: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in lines:
        if re.match(r"\s+\.type\s+\$__internal", line):
            break
        if match := re.match(r"(\.L_x_\d+):", line):
            labels[match[1]] = len(code)
        elif match := re.match(r"\s+/\*[0-9a-f]+\*/\s+(@!?U?P\w+\s+)?(?!NOP)(.*?)\s*;", line):
            code.append(Instruction(match[2], bool(match[1])))
    for instruction in code:
        if re.match(r"(BRA|BRX|JMP)", instruction.opcode):
            targets = LABEL.findall(instruction.text)
            instruction.jumps = [labels[target] for target in targets if target in labels]
            # a branch may have its condition among the operands
            instruction.conditional |= re.match(r"BRA(\.\w+)* !?U?P\d", instruction.text) is not None
    return code


def next_loads(code: list[Instruction], start: int) -> tuple[set[int], bool]:
    """The loads that follow the one at `start` before its result is used, and whether some way comes to a use first."""
    registers = code[start].loaded()
    found: set[int] = set()
    used = False
    seen: set[int] = set()
    todo = [start + 1]
    while todo:
        at = todo.pop()
        if at in seen or at >= len(code):
            continue
        seen.add(at)
        instruction = code[at]
        if instruction.reads() & registers:
            used = True
            continue
        if instruction.is_load() and not instruction.loaded() & registers:
            found.add(at)
            continue
        todo += instruction.jumps
        if not instruction.ends():
            todo.append(at + 1)
    return found, used


def count_waits(code: list[Instruction]) -> tuple[int, int, int]:
    """Loads, those that are waited for before another is issued, and those of the latter that have no company."""
    loads = [i for i, instruction in enumerate(code) if instruction.is_load()]
    following = {i: next_loads(code, i) for i in loads}
    waits = [i for i in loads if following[i][1] and not following[i][0]]
    accompanied = {j for found, _ in following.values() for j in found}
    return len(loads), len(waits), sum(1 for i in waits if i not in accompanied)


def count_divisions(code: list[Instruction]) -> tuple[int, int]:
    """By 64-bit numbers, by 32-bit ones."""
    wide = sum(re.match(r"CALL.*__cuda_sm20_(div|rem)_[su]64|I2F\.U64", i.text) is not None for i in code)
    narrow = sum(re.match(r"I2F(\.U32)?\.RP", i.opcode) is not None for i in code)
    return wide, narrow


def warps_per_multiprocessor(registers: int) -> int:
    """Of at most 64: a quarter of a multiprocessor has 16 384 registers and gives them out 256 at a time to a warp."""
    return min(16, 16384 // (-(-registers * 32 // 256) * 256)) * 4


def find(tool: str, package: str) -> str:
    """A program of the toolkit: on PATH, beside nvcc, or where pip puts it."""
    folders = [Path(sys.prefix), *map(Path, sys.path)]
    places = [place / tool for folder in folders for place in folder.glob("nvidia/*/bin")]
    if toolkit := os.environ.get("CUDA_HOME"):
        places.insert(0, Path(toolkit, "bin", tool))
    places += [Path("/usr/local/cuda/bin", tool)]
    found = shutil.which(tool) or next((str(place) for place in places if place.exists()), None)
    if not found:
        sys.exit(
            f"machine_code.py needs {tool} and found none: install the CUDA toolkit and put it on PATH, or {package}"
        )
    return found


def torch_headers() -> Path:
    spec = importlib.util.find_spec("torch")
    if not spec or not spec.submodule_search_locations:
        sys.exit(f"machine_code.py needs torch's headers and found no torch in {sys.executable}: pip install torch")
    return Path(spec.submodule_search_locations[0], "include")


def compile_word(word: str, arch: str, cubin: Path) -> str:
    """What ptxas says of the kernels of csrc/<word>/cuda.cu."""
    command = [os.environ.get("CUDACXX") or find("nvcc", "name it by CUDACXX."), f"-arch={arch}", *FLAGS]
    command += [*EXTRA_FLAGS.get(word, []), f"-I{CSRC}", "-isystem", str(torch_headers())]
    command += [str(CSRC / word / "cuda.cu"), "-o", str(cubin)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stderr}")
    return result.stderr


def resources(ptxas: str) -> dict[str, dict[str, int]]:
    """Of each mangled name: registers, stack, bytes spilled, static shared memory."""
    found: dict[str, dict[str, int]] = {}
    for block in ptxas.split("Compiling entry function '")[1:]:

        def number(pattern: str, text: str = block) -> int:
            match = re.search(pattern, text)
            return int(match[1]) if match else 0

        found[block.split("'")[0]] = {
            "registers": number(r"Used (\d+) registers"),
            "stack": number(r"(\d+) bytes stack frame"),
            "spill_stores": number(r"(\d+) bytes spill stores"),
            "spill_loads": number(r"(\d+) bytes spill loads"),
            "shared": number(r"(\d+) bytes smem"),
        }
    return found


def demangled(names: list[str]) -> list[str]:
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if not tool:
        sys.exit("machine_code.py needs c++filt (binutils) or cu++filt (pip install nvidia-cuda-cuxxfilt)")
    return subprocess.run(
        [tool], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout.splitlines()


def short_names(names: list[str]) -> list[str]:
    """Kernel<template arguments>, with the parameters' types only where the rest does not tell two kernels apart."""
    plain = [
        re.sub(r"^void |\(anonymous namespace\)::|\w+::|\((?:int|bool|unsigned int)\)", "", name) for name in names
    ]
    heads = [name.split("(")[0] for name in plain]
    return [
        f"{head} ({name[len(head) + 1 :].split(',')[0].rstrip(')')})" if heads.count(head) > 1 else head
        for head, name in zip(heads, plain, strict=True)
    ]


def kernels_of(word: str, arch: str) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernels.cubin")
        disassembler = find("nvdisasm", "pip install nvidia-cuda-nvdisasm.")  # before the minute that nvcc takes
        used = resources(compile_word(word, arch, cubin))
        listing = subprocess.run([disassembler, "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
    parts = re.split(r"^\.text\.(\S+):$", listing, flags=re.MULTILINE)
    rows = []
    for mangled, body in zip(parts[1::2], parts[2::2], strict=True):
        if mangled not in used:
            continue
        code = parse(body.splitlines())
        loads, waits, alone = count_waits(code)
        wide, narrow = count_divisions(code)
        registers = used[mangled]["registers"]
        counts = {"loads": loads, "waits": waits, "alone": alone, "divisions_64": wide, "divisions_32": narrow}
        warps = warps_per_multiprocessor(registers)
        rows.append(
            {"word": word, "kernel": mangled, "instructions": len(code), **used[mangled], "warps": warps, **counts}
        )
    names = short_names(demangled([str(row["kernel"]) for row in rows]))
    return sorted(
        (row | {"kernel": name} for row, name in zip(rows, names, strict=True)), key=lambda row: row["kernel"]
    )


COLUMNS = {
    "instructions": "instructions",
    "registers": "registers",
    "spills": "spills, bytes",
    "warps": "warps",
    "loads": "loads",
    "waits": "waits",
    "alone": "alone",
    "divisions_64": "/64",
    "divisions_32": "/32",
}


def cell(row: dict[str, object], column: str) -> str:
    if column == "spills":
        return str(int(str(row["spill_stores"])) + int(str(row["spill_loads"])))
    return str(row[column])


def markdown(rows: list[dict[str, object]], before: list[dict[str, object]]) -> str:
    """A row a kernel; with something to compare, `before → after` where the two differ."""
    old = {(row["word"], row["kernel"]): row for row in before}
    lines = ["| kernel | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---|" * len(COLUMNS)]
    for row in rows:
        cells = [f"{row['word']}: `{row['kernel']}`"]
        for column in COLUMNS:
            now, was = cell(row, column), old.get((row["word"], row["kernel"]))
            cells.append(now if was is None or cell(was, column) == now else f"{cell(was, column)} → {now}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    words = sorted(str(path.parent.relative_to(CSRC)) for path in CSRC.rglob("cuda.cu"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--word", nargs="+", choices=words, default=words, metavar="WORD", help=f"of {', '.join(words)}"
    )
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--kernel", default="", help="a regular expression: only kernels whose name has it are printed")
    parser.add_argument("--output", type=Path, help="where all rows are written as JSON")
    parser.add_argument("--compare", type=Path, help="such a file of an earlier state")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        found = pool.map(lambda word: kernels_of(word, options.arch), options.word)
        rows = [row for part in found for row in part]
    if options.output:
        options.output.write_text(json.dumps(rows, indent=0))
    before = json.loads(options.compare.read_text()) if options.compare else []
    print(markdown([row for row in rows if re.search(options.kernel, str(row["kernel"]))], before))


if __name__ == "__main__":
    main()
