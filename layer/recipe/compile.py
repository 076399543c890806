"""Run by the layer's own interpreter: compiles the files named on stdin (JSON: [[source, target, name in tracebacks], ...]).

Sourceless .pyc: the interpreter reads NAME.pyc beside no NAME.py without a look at any other file. -OO: no docstrings, no
assertions, so that less is read at each start.
"""

import json
import os
import py_compile
import sys

for source, target, name in json.load(sys.stdin):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(source, target, name, doraise=True, optimize=2, invalidation_mode=mode)
