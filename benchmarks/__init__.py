"""Timings, one module a subject, each with `run(smoke) -> dict` of plain numbers."""
