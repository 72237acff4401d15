"""Parameters of a program: where they are, what they take, and the language models that they decide on."""
