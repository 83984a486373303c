"""Enrolled faces: kept sealed on disk, searched in memory, bound to one embedding space."""
