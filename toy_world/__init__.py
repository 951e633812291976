"""Procedural films of colored shapes, with exact events, questions and answers."""
