"""Write the generated pages: `python docs/generate.py`. A test fails if they are out of date."""

from pathlib import Path

from smmix_pl.reporting.panels import markdown

METRICS = """# Logged metrics

Generated from `smmix_pl/reporting/metric_specs.py` and `panels.py` by `python docs/generate.py`.
With EMA, `val` and `test` are measured with the averaged weights, `val_weights` with the trained
ones.

"""


def pages() -> dict[str, str]:
    """Return the text of the generated pages by file name."""
    return {"metrics.md": METRICS + markdown()}


if __name__ == "__main__":
    for name, text in pages().items():
        (Path(__file__).parent / name).write_text(text)
