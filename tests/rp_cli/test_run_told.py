"""What `rp run` tells and records of each file: the place, the weights, what is missing."""

from __future__ import annotations

import json

from run_files import FAILS, PASSES, SKIPS, write

from rp_cli.errors import ExitCode
from rp_cli.reporting.store import Store
from rp_cli.runner.results import lacking_weights
from rp_cli.runner.run import new_record, run_one
from rp_cli.runner.telling import result_line, total_line


def test_what_the_pool_decided_is_recorded(rp, tmp_path):
    source = PASSES.replace(
        "print('said')",
        "__import__('resource_pool').get_global_resource_pool()"
        ".get_model('embedding', 'm', dict, {'device': 'cpu'})",
    )
    rp("run", write(tmp_path, source))
    (record,) = Store().last("run", 1)
    (event,) = record["files"][0]["pool"]["events"]
    assert (event["what"], event["key"].split(":")[:2]) == ("place", ["embedding", "m"])


LACKS = (
    "from resource_pool import WeightsUnavailableError\nMODEL_NAME = 'org/m'\n"
    + PASSES.replace("print('said')", "raise WeightsUnavailableError('none of org/m')")
)


def test_a_run_that_fails_only_for_want_of_weights_says_whose(rp, tmp_path):
    write(tmp_path, LACKS, "test_a.py")
    write(tmp_path, PASSES, "test_b.py")
    done = rp("run", tmp_path)
    assert done.code == ExitCode.NOT_HERE
    assert done.err.endswith("rp: no weights of org/m are here; fetch them, where there are any.\n")
    write(tmp_path, FAILS, "test_c.py")
    assert rp("run", tmp_path).code == ExitCode.FAILED


def test_a_twin_is_advised_only_where_one_can_be_made(rp, tmp_path):
    source = LACKS.replace("raise W", "from resource_pool.weights import locate_weights; raise W")
    ask = "locate_weights({!r}, mode='pretrained')"
    raised = source.replace("raise WeightsUnavailableError('none of org/m')", ask)
    write(tmp_path, raised.format("bert-base-uncased"), "test_a.py")
    assert "--weights auto" in rp("run", tmp_path).err
    write(tmp_path, raised.format("nobody/knows-this"), "test_a.py")
    done = rp("run", tmp_path)
    assert done.code == ExitCode.NOT_HERE
    assert "auto" not in done.err


def test_a_class_that_cannot_be_set_up_for_want_of_weights_counts_too(rp, tmp_path):
    setup = LACKS.replace("def test_a(self)", "def setUpClass(cls)").replace(
        "    def", "    @classmethod\n    def"
    )
    assert rp("run", write(tmp_path, setup + "    def test_b(self): pass\n")).code == 3


def test_a_crash_is_never_for_want_of_weights():
    crash = {"status": "crashed", "tests": [], "exception": "", "model_name": "m", "path": "p"}
    assert lacking_weights({"interrupted": False, "files": [crash]}) == []


def test_tests_that_were_all_skipped_are_no_failure(rp, tmp_path):
    done = rp("run", write(tmp_path, SKIPS))
    assert done.code == 0
    assert "(not here)" in done.err


RESULT = {
    "path": "skills/test_hf_m.py",
    "node": None,
    "status": "passed",
    "seconds": 9.04,
    "asked": "cuda",
    "weights": [{"kind": "tiny", "reason": "the file\x1b[2J is damaged"}],
    "tests": [{"status": "skipped"}, {"status": "passed"}, {"status": "passed"}],
    "pool": {
        "models": [
            {
                "device": "cpu",
                "dtype": "float32",
                "weights": "tiny",
                "note": "cuda is not used: no driver is here",
            }
        ]
    },
}


def test_a_files_line_says_what_it_ran_on_and_what_was_asked_for():
    assert result_line(RESULT) == (
        "PASSED skills/test_hf_m.py on cpu float32, tiny weights: 2 passed, 1 skipped in 9.0 s "
        "(cuda was asked for: no driver is here; tiny because the file\ufffd[2J is damaged)"
    )


def test_a_place_that_was_asked_for_and_taken_is_told_so():
    placed = {**RESULT["pool"]["models"][0], "backend": "cuda", "note": "cuda is slow for it"}
    line = result_line({**RESULT, "weights": [], "pool": {"models": [placed]}})
    assert line.endswith("(as asked for, although cuda is slow for it)")


def test_a_place_that_nobody_asked_for_needs_no_excuse():
    line = result_line({**RESULT, "asked": None, "weights": []})
    assert line.endswith("2 passed, 1 skipped in 9.0 s")


def test_a_file_of_a_cluster_names_its_node():
    line = result_line({**RESULT, "asked": None, "weights": [], "node": "gpu-7/3fa2b1"})
    assert line.endswith("(node gpu-7/3fa2b1)")


def test_several_files_end_with_a_total():
    record = {**new_record([]), "files": [RESULT, {**RESULT, "status": "failed"}], "seconds": 20.0}
    assert total_line(record) == (
        "2 files: 1 passed, 1 failed; 6 tests: 4 passed, 2 skipped; 20.0 s"
    )


def test_what_a_generated_class_says_is_recorded(tmp_path):
    source = (
        "from types import SimpleNamespace\nMODEL_NAME = 'm'\n"
        + PASSES
        + "    weights = SimpleNamespace(kind='tiny', reason='damaged')\n"
        "    preferences = {'device': 'cuda:1'}\n"
    )
    result = run_one(write(tmp_path, source), 60, {})
    assert json.loads(json.dumps(result)) == result
    assert (result["model_name"], result["asked"]) == ("m", "cuda:1")
    assert result["weights"] == [{"kind": "tiny", "reason": "damaged"}]
