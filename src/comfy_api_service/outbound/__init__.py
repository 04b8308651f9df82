"""Calls to addresses that somebody gave: checked, bounded, and telling nothing of what lies inside."""
