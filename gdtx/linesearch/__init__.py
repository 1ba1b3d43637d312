"""Searches for a step along a line: functions of numbers, which know no trees."""
