from adapter_arena.errors import RequestError
from adapter_arena.serve.latency import median_latencies


def test_adapters_take_turns_and_one_that_fails_is_left_out():
    calls = []

    def predict(texts, name):
        calls.append(name)
        if name == "removed":
            raise RequestError("Unknown adapter 'removed'.")

    latencies = median_latencies(predict, ["a", "removed", "b"], rounds=2)
    assert calls == ["a", "removed", "b"] * 3
    assert latencies.keys() == {"a", "b"}
    assert min(latencies.values()) > 0
