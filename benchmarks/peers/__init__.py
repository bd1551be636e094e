"""Other systems on the same work. Each file runs alone, inside a virtual environment of its own."""
