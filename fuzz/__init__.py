"""Coverage-guided fuzzing of every reader: `python -m fuzz`. targets.py says what a reader must do with any bytes."""
