"""A cached analysis must be told in a fraction of a second: reports import nothing heavy before they need it."""

import subprocess
import sys

HEAVY = ("numpy", "tabulate", "jsonschema", "sympy", "networkx", "torch", "matplotlib", "pandas")
ROOMS = ("summary", "as_terminal", "as_markdown", "as_json", "as_csv", "as_html")


def test_no_room_of_the_reports_imports_anything_heavy():
    imports = "; ".join(f"import costmodel.report.{room}" for room in ROOMS)
    code = f"import sys; {imports}; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
