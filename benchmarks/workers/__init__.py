"""One worker a peer: a script that trains the same model its peer's own way and prints one line."""
