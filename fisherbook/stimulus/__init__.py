"""Faces, and the stimulus that shows them at any angle."""
