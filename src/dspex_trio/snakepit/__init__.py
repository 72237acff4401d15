"""The snakepit worker: what a pool of snakepit expects of its Python process, around a runtime."""
