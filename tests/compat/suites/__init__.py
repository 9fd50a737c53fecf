"""Test suites that others wrote for SQS, run against the SQS wire."""
