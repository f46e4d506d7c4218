"""What a report makes of records: the matrix, memory, the pool's events, failures."""

from __future__ import annotations

import pytest

from rp_cli.reporting import plots
from rp_cli.reporting.errors import saved_reports
from rp_cli.reporting.events import pool_events, spans
from rp_cli.reporting.matrix import matrix
from rp_cli.reporting.memory import memory_points
from rp_cli.reporting.runs import failures_of, method, model_of, tidy_run
from rp_cli.reporting.summary import summarise
from rp_cli.reporting.told import run_rows


def run(make, files, number=1, **more):
    return tidy_run({**make.run(files, **more), "id": number})


def cells(table):
    return {(cell["model_name"], cell["hardware"]): cell for cell in table["cells"]}


class TestMatrix:
    def test_the_newest_result_of_each_model_on_each_hardware(self, make):
        gpu = make.placement("b", "cuda:0", "float16", weights="pretrained")
        newest = run(make, [make.file("b", gpu, status="failed")], 2)
        older = run(make, [make.file("a"), make.file("b", status="passed")], 1)
        table = matrix([newest, older])
        assert table["hardware"] == ["cpu", "cuda"]
        assert table["models"] == ["a", "b"]
        found = cells(table)
        assert {place: (cell["status"], cell["run"]) for place, cell in found.items()} == {
            ("a", "cpu"): ("passed", 1),
            ("b", "cpu"): ("passed", 1),
            ("b", "cuda"): ("failed", 2),
        }
        told = found["b", "cuda"]
        assert (told["weights"], told["dtype"], told["memory_mb"]) == ("pretrained", "float16", 2)

    def test_other_hardware_has_the_result_of_its_own_test(self, make):
        tests = [
            make.test("test_cuda_agrees_with_cpu_float32", "failed", "E: 0.3 apart", 1.5),
            make.test("test_mps_agrees_with_cpu_float32", "skipped", "m: mps: no macOS"),
            make.test("f.py::TestA::test_webgpu_agrees_with_cpu_float32", "skipped", "set up"),
            make.test("test_cpu_agrees_with_itself", "passed"),
        ]
        placed = make.placement("m"), make.placement("m", "cuda:1", "float16")
        found = cells(matrix([run(make, [make.file("m", *placed, status="failed", tests=tests)])]))
        assert found["m", "cpu"]["status"] == "failed"
        cuda, mps = found["m", "cuda"], found["m", "mps"]
        assert (cuda["status"], cuda["dtype"], cuda["seconds"]) == ("failed", "float16", 1.5)
        assert (mps["status"], mps["weights"]) == ("skipped", None)
        assert mps["detail"] == "m: mps: no macOS"
        assert found["m", "webgpu"]["detail"] == "set up"

    def test_what_a_model_is_only_compared_with_is_no_result(self, make):
        placed = make.placement("m", "cuda:0"), make.placement("m", "cpu")
        assert matrix([run(make, [make.file("m", *placed)])])["hardware"] == ["cuda"]

    def test_a_simulation_is_never_the_hardware_itself(self, make):
        simulated = make.placement("m", "webgpu:simulation")
        real = run(make, [make.file("m", make.placement("m", "webgpu:0"))], 2)
        table = matrix([real, run(make, [make.file("m", simulated)])])
        assert table["hardware"] == ["webgpu", "webgpu (simulated)"]
        tests = [make.test("test_webgpu_agrees_with_cpu_float32")]
        compared = make.file("m", make.placement("m"), simulated, tests=tests)
        assert matrix([run(make, [compared])])["hardware"] == ["cpu", "webgpu (simulated)"]

    def test_an_emulated_gpu_is_never_a_gpu(self, make):
        emulated = make.placement("m", "webgpu:0", web={"adapter_kind": "software"})
        real = make.placement("m", "webgpu:0", web={"adapter_kind": "hardware"})
        runs = [run(make, [make.file("m", real)], 2), run(make, [make.file("m", emulated)])]
        assert matrix(runs)["hardware"] == ["webgpu", "webgpu (software)"]
        ran = [row[3] for one in runs for row in run_rows(one)]
        assert ran == ["webgpu:0 (hardware) float32", "webgpu:0 (software) float32"]

    def test_a_file_that_broke_before_it_loaded_was_nowhere(self, make):
        file = make.file("m", status="crashed", error="killed", pool={})
        table = matrix([run(make, [file])])
        assert table["hardware"] == ["not loaded"]
        assert table["cells"][0]["detail"] == "killed"
        tests = [make.test("t"), make.test("u", "failed", "Traceback\nE: no")]
        asked = matrix([run(make, [make.file("m", tests=tests, pool={}, asked="cuda")])])
        assert asked["cells"][0]["detail"] == "E: no"
        assert asked["hardware"] == ["cuda"]

    def test_of_several_files_of_one_run_the_worst_counts(self, make):
        files = [make.file("m"), make.file("m", status="failed"), make.file("m", status="skipped")]
        assert matrix([run(make, files)])["cells"][0]["status"] == "failed"

    def test_a_file_that_was_not_meant_says_nothing(self, make):
        assert matrix([run(make, [make.file("m", status="deselected")])])["cells"] == []

    @pytest.mark.parametrize(
        ("key", "device", "model"),
        [
            ("embedding:org/bert#AutoModel-tiny:cpu:float32", "cpu", "org/bert"),
            ("embedding:bert@main:cuda:0:native", "cuda:0", "bert"),
            ("embedding:/tmp/bert:cpu:native", "cpu", "/tmp/bert"),
            ("odd", "cpu", "odd"),
        ],
    )
    def test_a_file_that_does_not_name_its_model_has_that_of_the_pools_key(
        self, key, device, model
    ):
        assert model_of(key, device) == model


class TestMemory:
    def test_measured_peaks_and_loads_stand_against_their_predictions(self, make):
        make.measure("org/bert", 100.0, 110.0)
        placed = make.placement("m", predicted=1 << 20, memory_usage=1 << 19)
        shared = [{**make.file(name, placed), "model_name": None} for name in ("a", "b")]
        load, peak = memory_points([run(make, shared)], 10)
        assert (load["model_name"], load["what"], load["method"]) == ("m", "weights", None)
        assert (load["predicted_mb"], load["measured_mb"], load["error"]) == (1.0, 0.5, -0.5)
        assert (peak["model_name"], peak["what"], peak["method"]) == ("org/bert", "peak", "trace")
        assert (peak["hardware"], peak["dtype"]) == ("cpu", "float32")
        assert peak["error"] == pytest.approx(0.1)

    def test_a_plot_holds_every_point_inside_its_frame(self, make):
        for number, size in enumerate((0.01, 1.0, 3.7, 900.0, 2**21)):
            make.measure(f"m{number}", size, size * 1.5)
        plot = plots.scatter(memory_points([], 10))
        assert plot is not None
        frame = plots.SQUARE
        for point in plot["points"]:
            assert frame.left <= point["x"] <= frame.right
            assert frame.top <= point["y"] <= frame.bottom
            # More was measured than predicted: above the diagonal.
            assert frame.bottom - point["y"] > point["x"] - frame.left
        assert plot["ticks"][0]["x"] == frame.left
        assert plot["ticks"][-1]["x"] == frame.right

    def test_one_prediction_that_was_exact_is_on_the_diagonal(self, make):
        make.measure("m", 64.0, 64.0)
        (point,) = plots.scatter(memory_points([], 10))["points"]
        assert plots.SQUARE.bottom - point["y"] == point["x"] - plots.SQUARE.left

    @pytest.mark.parametrize(
        ("megabytes", "label"),
        [(0.5, "512 KiB"), (1.0, "1 MiB"), (1.25, "1.2 MiB"), (2048.0, "2 GiB"),
         (2.0**21, "2 TiB"), (0.0, "0 KiB")],
    )  # fmt: skip
    def test_sizes_are_told_as_people_say_them(self, megabytes, label):
        assert plots.size_label(megabytes) == label


class TestEvents:
    KEY = "family:m:cpu:float32"

    def recorded(self, make, *files):
        return {**make.run(files), "id": 7}

    def file(self, make, name, *events, **more):
        return make.file(name, pool={"events": list(events)}, **more)

    def test_a_shared_load_is_one_event_of_several_files(self, make):
        numbers = {"device": "cpu", "dtype": "float32", "memory_usage": 3 << 20}
        load = make.event("place", self.KEY, 2.0, numbers=numbers)
        record = self.recorded(make, self.file(make, "a", load), self.file(make, "b", load))
        (event,) = pool_events(record)
        assert (event["run"], event["seconds"], event["memory_mb"]) == (7, 2.0, 3.0)
        assert (event["model_name"], event["device"]) == ("m", "cpu")
        assert event["files"] == ["skills/test_hf_a.py", "skills/test_hf_b.py"]

    def test_a_model_is_there_from_its_load_to_its_eviction(self, make):
        events = [
            make.event("evict", self.KEY, 5.0, reason="room"),
            make.event("place", self.KEY, 1.0),
            make.event("place", self.KEY, 6.0),
        ]
        record = self.recorded(make, self.file(make, "a", *events, seconds=9.0))
        first, second = spans(pool_events(record), tidy_run(record)["files"])
        assert (first["start"], first["end"], first["why"]) == (1.0, 5.0, "room")
        assert (second["start"], second["end"], second["latest"]) == (6.0, None, 15.0)

    def test_a_shared_model_is_there_until_all_have_evicted_it(self, make):
        load = make.event("place", self.KEY, 1.0)
        gone = make.event("evict", self.KEY, 3.0)
        record = self.recorded(make, self.file(make, "a", load, gone), self.file(make, "b", load))
        (span,) = spans(pool_events(record), tidy_run(record)["files"])
        assert (span["end"], span["latest"]) == (None, None)

    def test_a_gpus_worker_keeps_a_model_after_its_file(self, make):
        load = make.event("place", self.KEY, 1.0)
        record = self.recorded(make, self.file(make, "a", load, ran_in="gpu 0"))
        (span,) = spans(pool_events(record), tidy_run(record)["files"])
        assert span["latest"] is None

    def test_events_without_a_time_and_clocks_that_go_back_are_survived(self, make):
        odd = {"what": "place", "key": "k", "timestamp": "yesterday"}
        early = make.event("place", self.KEY, 0.0, timestamp="2026-03-04T09:59:00")
        record = self.recorded(make, self.file(make, "a", odd, early))
        (event,) = pool_events(record)
        assert event["seconds"] == -60.0
        drawn = plots.timeline(spans([event], []), 10.0)
        assert drawn is not None
        assert drawn["lanes"][0]["x"] == plots.WIDE.left

    def test_very_many_lanes_are_cut_and_counted(self, make):
        loads = [make.event("place", f"family:m{n}:cpu:float32", n / 10) for n in range(50)]
        record = self.recorded(make, self.file(make, "a", *loads))
        drawn = plots.timeline(spans(pool_events(record), []), 0.0)
        assert drawn is not None
        assert (len(drawn["lanes"]), drawn["hidden"]) == (40, 10)


class TestFailures:
    def test_a_test_a_broken_file_and_a_crash_are_failures(self, make):
        files = [
            make.file("a", status="failed", tests=[make.test("t", "failed", "T\nE: no")]),
            make.file("b", status="crashed", error="killed", output="1\n2\n", tests=[]),
            make.file("c", status="no_tests", tests=[]),
            make.file("d", status="skipped"),
        ]
        found = list(failures_of(run(make, files)))
        assert [(one["test"], one["message"]) for one in found] == [
            ("t", "E: no"), (None, "killed"), (None, "no_tests"),
        ]  # fmt: skip
        assert found[1]["output"] == "1\n2"

    @pytest.mark.parametrize("status", ["crashed", "timeout"])
    def test_a_file_that_broke_in_a_test_is_told_once(self, make, status):
        why = "the test process crashed with SIGABRT; it was running test_hf_m.TestM.u"
        tests = [make.test("t", "failed", "T\nE: no"), make.test("u", "error", why)]
        files = [make.file("a", status=status, error=why, output="1\n2\n", tests=tests)]
        first, second = failures_of(run(make, files))
        assert (first["test"], first["status"], first["output"]) == ("t", "failed", "")
        # The test's line keeps what only the file knows.
        assert (second["test"], second["status"]) == ("u", status)
        assert (second["message"], second["trace"], second["output"]) == (why, why, "1\n2")

    def test_a_file_that_broke_outside_of_its_tests_is_told_beside_them(self, make):
        tests = [make.test("t", "failed", "T\nE: no")]
        files = [make.file("a", status="crashed", error="killed", tests=tests)]
        assert [one["test"] for one in failures_of(run(make, files))] == ["t", None]

    @pytest.mark.parametrize(
        "name", ["module.Class.t", "file.py::Class::t", "file.py::t", "t (module.Class)", "t"]
    )
    def test_a_failure_is_named_by_its_method(self, name):
        assert method(name) == "t"

    def test_a_failure_is_told_with_the_error_report_that_was_saved_of_it(
        self, store, make, reports_dir
    ):
        fails = [make.test("t", "failed", make.error_report()["stack_trace"])]
        store.save(make.run([make.file("gpt2", status="failed", tests=fails)]))
        other = make.error_report(error_message="something else")
        late = make.error_report(timestamp="2026-03-05T10:00:00+00:00")
        folder = reports_dir(mine=make.error_report(), other=other, late=late,
                             another_model=make.error_report("bert"))  # fmt: skip
        summary = summarise(store, folder, 1)
        assert summary["failures"][0]["error_report"] == str(folder / "mine.json")
        assert str(folder / "mine.json") in [one["path"] for one in summary["error_reports"]]

    def test_a_report_that_the_run_recorded_outlives_its_file(
        self, store, make, reports_dir, tmp_path
    ):
        fails = [make.test("t", "failed", "E: no")]
        run = make.run([make.file("gpt2", status="failed", tests=fails)])
        early = make.error_report(timestamp="2026-03-04T09:00:00+00:00")
        folder = reports_dir(mine=make.error_report(), early=early, torn="{")
        store.save({**run, "error_reports": saved_reports(folder, run)})
        summary = summarise(store, tmp_path, 9)
        (report,) = summary["error_reports"]
        assert summary["failures"][0]["error_report"] == report["path"]
        assert (report["needed_mb"], report["free_mb"]) == (2048.0, 1536.0)
        # As long as the file is there, the report is told once.
        assert len(summarise(store, folder, 9)["error_reports"]) == 3
