"""The `fila-video` command and what it draws."""
