"""Measures answers and scene selection on annotated videos: what each part of the method is worth (tables 2, 3, 5)."""
