"""Count what makes code dense: long functions, comprehensions, parallel assignments and raises.

    python tests/style_counts.py [folder or file ...]

Without arguments the product's code is counted, all of it and by package. The counts are per 1,000 lines.
"""

import ast
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PRODUCT = [ROOT / "adapter_arena", ROOT / "app.py", ROOT / "train_space.py"]
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def python_files(paths: list[Path]) -> list[Path]:
    """Return the Python files among the paths and in the folders among them."""
    files = []
    for path in paths:
        if path.is_dir():
            files.extend(sorted(path.rglob("*.py")))
        else:
            files.append(path)
    return files


def is_parallel_assignment(node: ast.AST) -> bool:
    """Return whether the node assigns several values at once: `a, b = x, y`."""
    if not isinstance(node, ast.Assign):
        return False
    return isinstance(node.value, ast.Tuple) and isinstance(node.targets[0], ast.Tuple)


def count(files: list[Path]) -> dict[str, float]:
    """Return the counts of all files together."""
    lines = 0
    comprehensions = 0
    parallel_assignments = 0
    raises = 0
    function_lengths = [0]
    for file in files:
        text = file.read_text()
        lines += len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, COMPREHENSIONS):
                comprehensions += 1
            elif isinstance(node, ast.Raise):
                raises += 1
            elif is_parallel_assignment(node):
                parallel_assignments += 1
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                function_lengths.append(node.end_lineno - node.lineno + 1)
    per_thousand = 1000 / max(lines, 1)
    return {
        "files": len(files),
        "lines": lines,
        "median": statistics.median(function_lengths),
        "p90": sorted(function_lengths)[int(0.9 * (len(function_lengths) - 1))],
        "longest": max(function_lengths),
        "comprehensions": round(comprehensions * per_thousand, 1),
        "parallel": round(parallel_assignments * per_thousand, 1),
        "raises": round(raises * per_thousand, 1),
    }


def main(arguments: list[str]) -> None:
    """Print one row for everything and, without arguments, one for each package."""
    if arguments:
        rows = {argument: count(python_files([Path(argument)])) for argument in arguments}
    else:
        rows = {"product": count(python_files(PRODUCT))}
        for folder in sorted(path for path in (ROOT / "adapter_arena").iterdir() if (path / "__init__.py").is_file()):
            rows[folder.name] = count(python_files([folder]))
    columns = list(next(iter(rows.values())))
    print(f"{'':24}", *(f"{column:>14}" for column in columns))
    for name, counts in rows.items():
        print(f"{name:24}", *(f"{counts[column]:>14}" for column in columns))


if __name__ == "__main__":
    main(sys.argv[1:])
