import subprocess
import sys
from pathlib import Path

import ssdnet_jax

SCRIPT = """
import gc, importlib.util, sys
sys.argv = ["{program}"]
spec = importlib.util.spec_from_file_location("importing", "{path}")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(gc.isenabled(), gc.get_freeze_count() > 0)
module.imported()
print(gc.isenabled(), gc.get_freeze_count() > 0)
"""


def collecting(program):
    """Whether garbage is collected and objects are kept for good, before and after `imported`."""
    path = Path(ssdnet_jax.__file__).parent / "importing.py"
    script = SCRIPT.format(program=program, path=path.as_posix())
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_nothing_looks_for_garbage_while_a_command_is_imported():
    assert collecting("/usr/bin/ssdnet-sweep") == ["False False", "True True"]


def test_whoever_imports_the_package_otherwise_keeps_their_garbage_collection():
    assert collecting("notebook.py")[0] == "True False"
