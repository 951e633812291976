"""Many videos, many questions, and films of hours: work that goes on where it was broken off."""
