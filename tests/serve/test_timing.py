from adapter_arena.errors import RequestError
from adapter_arena.serve.timing import measure_latency


def test_adapters_take_turns_and_one_that_fails_is_left_out():
    calls = []

    def predict(name):
        calls.append(name)
        if name == "removed":
            raise RequestError("Unknown adapter 'removed'.")

    latencies = measure_latency(predict, ["a", "removed", "b"], rounds=2)
    assert calls == ["a", "removed", "b", "a", "b", "a", "b"]
    assert latencies.keys() == {"a", "b"}
    assert min(latencies.values()) > 0
