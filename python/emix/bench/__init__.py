"""Measuring emix beside what a user would pick instead, on any machine."""
