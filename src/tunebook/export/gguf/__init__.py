"""GGUF: the file that llama.cpp, Ollama and LM Studio run, written without a compiler.

`architectures` names and turns tensors, `mixes` chooses their types, `writer` writes the file one
tensor at a time and `checking` reads it back.
"""
