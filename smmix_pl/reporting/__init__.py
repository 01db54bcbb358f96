"""Metric names, comparisons, reports and dashboards of finished runs."""
