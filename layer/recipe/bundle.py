"""Run by the layer's own interpreter: compiles all Python code of the layer into one file, modules.bundle.

Usage: python bundle.py TARGET, with a JSON list of [module, is a package, source file, name in tracebacks] on stdin.
The format is described in layer/interpreter.c, which reads it. Compiled as with -OO: no docstrings and no assertions, so that
less is read at each start.
"""

import json
import marshal
import struct
import sys

MAGIC = b"BKSTPPY1"
HEADER = struct.Struct("<8sI")
ENTRY = struct.Struct("<IIII")

Module = tuple[str, bool, bytes]


def compiled(name: str, is_package: bool, source: str, shown: str) -> Module:
    with open(source, "rb") as file:
        code = compile(file.read(), shown, "exec", dont_inherit=True, optimize=2)
    return name, is_package, marshal.dumps(code)


def packed(modules: list[Module]) -> bytes:
    """The bundle's bytes: header, entries, names, code."""
    names = bytearray()
    codes = bytearray()
    entries = bytearray()
    first_name = HEADER.size + ENTRY.size * len(modules)
    first_code = first_name + sum(len(name.encode()) + 1 for name, _, _ in modules)
    for name, is_package, code in modules:
        entries += ENTRY.pack(first_name + len(names), first_code + len(codes), len(code), is_package)
        names += name.encode() + b"\0"
        codes += code
    return HEADER.pack(MAGIC, len(modules)) + entries + names + codes


def main() -> None:
    # zipimport: see leave_out_zipimport in layer/interpreter.c.
    modules: list[Module] = [("zipimport", False, marshal.dumps(compile("", "zipimport.py", "exec")))]
    modules += [compiled(*entry) for entry in json.load(sys.stdin)]
    with open(sys.argv[1], "wb") as file:
        file.write(packed(modules))


if __name__ == "__main__":
    main()
