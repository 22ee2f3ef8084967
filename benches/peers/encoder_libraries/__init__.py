"""Libraries that run a whole encoder, one a file; serve.py says what each file must have."""
