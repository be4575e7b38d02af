"""GGUF files: what llama.cpp, Ollama and LM Studio run, written in Python and torch alone."""
