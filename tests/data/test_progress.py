"""Progress of long loops in a log file."""

import pytest

from smmix_pl.data.io import progress


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_log_file_gets_a_line_when_one_is_due(monkeypatch, capsys, seconds):
    monkeypatch.setattr(progress, "EVERY", seconds)
    assert list(progress.with_progress("abc", 3, "Reading")) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    if seconds:
        assert not lines
    else:
        assert [line.split(",")[0] for line in lines] == [f"Reading: {n} of 3" for n in (1, 2, 3)]
        assert "0:00:00 left" in lines[-1]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (-1, "0:00:00"), (3725, "1:02:05"), (90_000, "1 day")]
)
def test_durations_are_hours_minutes_and_seconds(seconds, text):
    assert text in progress.duration(seconds)
