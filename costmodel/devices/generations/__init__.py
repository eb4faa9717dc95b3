"""One file a generation; each holds its record as ``GENERATION``. A new file is a new generation."""
