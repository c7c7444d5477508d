"""A supervisor of one program, to be killed by a test.

Run as `python stand_in.py LOGS MARK CODE`: it supervises `python -c CODE` and starts it
with MARK in the variable STAND_IN.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from config.stack import Program, Stack  # after the path that leads to it

if __name__ == "__main__":
    logs, mark, code = sys.argv[1:]
    stack = Stack(Path(logs), {**os.environ, "STAND_IN": mark})
    stack.handle_signals()
    stack.start([Program(name="program", command=(sys.executable, "-c", code), grace=1)])
    print("ready", flush=True)
    stack.watch()
    stack.stop()
