"""The process of a trace leaves out what takes long to import, and nobody else may notice."""

from __future__ import annotations

import os
import subprocess
import sys


def test_another_name_of_the_module_that_is_put_off_is_really_imported(tmp_path):
    """scikit-learn, which transformers imports where it is installed, wants several."""
    package = tmp_path / "scipy" / "optimize"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text("milp = 'real'; linear_sum_assignment = 'real'")
    (package / "_inside.py").write_text("name = 'real'")
    code = (
        "import sys; from resource_pool.prediction.isolation import _leave_out_scipy;"
        " _leave_out_scipy(); from scipy.optimize import linear_sum_assignment as first;"
        " assert first is None and 'scipy' not in sys.modules;"
        " from scipy.optimize import milp; from scipy.optimize._inside import name;"
        " from scipy.optimize import linear_sum_assignment as again;"
        " assert (milp, name, again) == ('real', 'real', 'real')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
