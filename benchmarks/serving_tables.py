"""The tables and the figure of benchmarks/serving.json."""

import statistics
from pathlib import Path

import cpu
import pandas
from peers import PEERS
from workload import CLIENTS


def peers_table(results: dict[str, dict]) -> str:
    """Return the table of the peers in Markdown: medians of the rounds, the kinds of CPU side by side."""
    kinds = _kinds_with_peers(results)
    titles = [
        f"{cpu.title(kind, found)}: 64 tokens, ms | one / 8 adapters, texts/s | ours is × as fast"
        for kind, found in kinds.items()
    ]
    lines = [f"| | {' | '.join(titles)} |", f"|---|{'---:|' * 3 * len(titles)}"]
    for name in PEERS:
        cells = [_peer_cells(found["peers"], name) for found in kinds.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _kinds_with_peers(results: dict[str, dict]) -> dict[str, dict]:
    return {kind: found for kind, found in results.items() if "peers" in found}


def _peer_cells(peers: dict[str, dict], name: str) -> str:
    """Return the three cells of a peer on one kind of CPU."""
    if name not in peers:
        return "– | – | –"
    row = peers[name]
    milliseconds = statistics.median(row["single_64_ms"])
    rate = statistics.median(row["one"])
    our_rate = statistics.median(peers["Adapter Arena"]["mixed"])
    if row["mixed"]:
        mixed_rate = statistics.median(row["mixed"])
        return f"{milliseconds:.1f} | {rate:.1f} / {mixed_rate:.1f} | {our_rate / mixed_rate:.2f}"
    return f"{milliseconds:.1f} | {rate:.1f} / – | {our_rate / rate:.2f}"


def clients_table(results: dict[str, dict]) -> str:
    """Return the table of the clients of the running app in Markdown."""
    lines = [
        "| CPU | clients over HTTP | answers/s | p50, ms | p95, ms | p99, ms | lost | engine alone, answers/s | Gradio with an empty function |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, found in results.items():
        title = cpu.TITLES.get(kind, kind)
        for load, row in found.get("clients", {}).items():
            lines.append(
                f"| {title} | {CLIENTS}, {load} | {_short(row['requests_per_second'])} "
                f"| {_short(row['p50_ms'])} | {_short(row['p95_ms'])} | {_short(row['p99_ms'])} | {row['lost']} "
                f"| {row['engine_requests_per_second']:.1f} | {row['empty_gradio_requests_per_second']:.1f} |"
            )
        if "load" in found:
            row = found["load"]
            lines.append(
                f"| {title} | {row['clients']} for {row['seconds'] / 60:.0f} minutes, beginnings of 32 tokens "
                f"| {row['requests_per_second']:.1f} | {row['p50_ms']:,.0f} | | {row['p99_ms']:,.0f} "
                f"| {row['requests'] - row['answered']} | | |"
            )
    return "\n".join(lines)


def _short(value: float) -> str:
    """Return a number with one decimal below 100, and without decimals above."""
    if value < 100:
        return f"{value:.1f}"
    return f"{value:,.0f}"


def plot(results: dict[str, dict], file: Path) -> None:
    """Draw the texts per second of every peer, with one adapter and with eight; one panel for each kind of CPU."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = _kinds_with_peers(results)
    figure, panels = pyplot.subplots(1, len(kinds), sharey=True, squeeze=False, figsize=(3 + 4.5 * len(kinds), 4.5))
    for (kind, found), axes in zip(kinds.items(), panels[0]):
        is_first = axes is panels[0][0]
        rates = _median_rates(found["peers"]).iloc[::-1]
        rates.plot.barh(ax=axes, color=["#9aa5b1", "#2f6fde"], width=0.75, legend=is_first)
        for bars in axes.containers:
            axes.bar_label(bars, fmt=lambda value: f"{value:.1f}" if value > 0 else "", padding=3, fontsize=8)
        axes.set_title(cpu.title(kind, found), fontsize=10)
        axes.set_xlabel("reviews per second")
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _median_rates(peers: dict[str, dict]) -> pandas.DataFrame:
    """Return the median texts per second of every peer; NaN if it was not measured."""
    rates = pandas.DataFrame(index=list(PEERS), columns=["one adapter", "8 adapters, mixed"], dtype=float)
    for name, row in peers.items():
        rates.loc[name, "one adapter"] = statistics.median(row["one"])
        if row["mixed"]:
            rates.loc[name, "8 adapters, mixed"] = statistics.median(row["mixed"])
    return rates
