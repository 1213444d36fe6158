"""What a centre needs, from what a second of call costs."""

import json

from hypothesis import given
from hypothesis import strategies as st

from benchmarks import plan

UNITS = {
    "cpu_s_per_call_s": {"gateway": 0.02, "detect": 0.006, "kafka": 0.01, "postgres": 0.001, "redis": 0.001},
    "bytes_per_call_s": {"speech": 20_000, "signals": 700, "alerts": 400, "(states)": 2_000},
}


def test_a_centre_of_ten_thousand():
    planned = plan.plan(UNITS, 10_000, calls_per_asr=40)
    assert planned["asr_workers"] == 313
    assert planned["gateway_cores"] == 417, "10,000 × 0.02 × 1.25 / 0.6"
    assert planned["detect_cores"] == 125
    assert planned["mbit_s"]["speech"] == 1_600.0
    assert "(states)" not in planned["mbit_s"]
    assert planned["partitions"] == 512


@given(st.integers(1, 50_000), st.floats(1, 1_000))
def test_there_is_a_partition_for_every_worker_and_more_calls_never_need_less(calls, held):
    small, large = plan.plan(UNITS, calls, held), plan.plan(UNITS, calls + 100, held)
    assert small["partitions"] >= max(small["asr_workers"], small["detect_cores"])
    assert all(large[name] >= small[name] for name in ("asr_workers", "gateway_cores", "partitions"))


def test_the_command_reads_what_the_cluster_benchmark_wrote(tmp_path, capsys):
    units, out = tmp_path / "cluster.json", tmp_path / "plan.json"
    units.write_text(json.dumps({"summary": UNITS}))
    plan.main(["--calls", "100", "--units", str(units), "--calls-per-asr", "40", "--json", str(out)])
    assert "asr_workers" in capsys.readouterr().out
    assert json.loads(out.read_text())["summary"]["calls"] == 100
